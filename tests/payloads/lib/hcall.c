/* Hypervisor calls and the byte order of what they point to. */
#include "pseries.h"

int64_t hcall4(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t args[9] = { a, b, c, d };

	return hcall9(nr, args, args);
}

uint32_t get_be32(const volatile void *from)
{
	const volatile uint8_t *byte = from;

	return (uint32_t)byte[0] << 24 | (uint32_t)byte[1] << 16 | (uint32_t)byte[2] << 8 | byte[3];
}

uint64_t get_be64(const volatile void *from)
{
	const volatile uint8_t *byte = from;

	return (uint64_t)get_be32(byte) << 32 | get_be32(byte + 4);
}

void put_be32(volatile void *to, uint32_t value)
{
	volatile uint8_t *byte = to;

	for (int i = 0; i < 4; i++)
		byte[i] = value >> (24 - 8 * i);
}
