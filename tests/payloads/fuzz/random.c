/* xorshift64*: small, and its low bits are good enough to choose calls by. */
#include "fuzz.h"

static uint64_t state;

void random_seed(uint64_t seed)
{
	state = seed * 0x9e3779b97f4a7c15 | 1;
}

uint64_t random64(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1d;
}

uint64_t random_below(uint64_t bound)
{
	return (random64() >> 16) % bound;
}
