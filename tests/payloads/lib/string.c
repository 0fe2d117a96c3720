/* What the compiler may call by itself, and two helpers for strings. */
#include "pseries.h"

void *memcpy(void *to, const void *from, size_t length)
{
	char *out = to;
	const char *in = from;

	while (length--)
		*out++ = *in++;
	return to;
}

void *memset(void *to, int byte, size_t length)
{
	char *out = to;

	while (length--)
		*out++ = byte;
	return to;
}

bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

size_t length_of(const char *string)
{
	size_t length = 0;

	while (string[length])
		length++;
	return length;
}
