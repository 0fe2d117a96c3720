/* xorshift64*: small, and its low bits are good enough to choose calls by. */
#include "pseries.h"

uint64_t random_start(uint64_t seed)
{
	return seed * 0x9e3779b97f4a7c15 | 1;
}

uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d;
}
