/* The one sequence that all choices are made by. */
#include "fuzz.h"

static uint64_t state;

void random_seed(uint64_t seed)
{
	state = random_start(seed);
}

uint64_t random64(void)
{
	return random_next(&state);
}

uint64_t random_below(uint64_t bound)
{
	return (random64() >> 16) % bound;
}
