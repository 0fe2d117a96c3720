/* Random arguments: addresses inside and outside memory, numbers that the machine uses, and edges. */
#include "fuzz.h"

static uint64_t an_address(void)
{
	switch (random_below(5)) {
	case 0:		/* a page of the arena */
		return machine.arena + (random_below(ARENA_SIZE) & ~0xfffull);
	case 1:		/* anywhere in the arena */
		return machine.arena + random_below(ARENA_SIZE);
	case 2:		/* across the end of memory */
		return machine.memory - random_below(256);
	case 3:		/* behind the end of memory */
		return machine.memory + random_below(1ull << 40);
	default:	/* memory, as an address that real mode takes for the same */
		return (machine.arena + random_below(ARENA_SIZE)) | (random_below(16) << 60);
	}
}

static uint64_t a_number_in_use(void)
{
	switch (random_below(7)) {
	case 0:		/* CPUs */
		return random_below(machine.cpus + 2);
	case 1:		/* interrupt sources */
		return 0x1000 + random_below(0x400);
	case 2:		/* bus units and DMA windows */
		return 0x80000000 + random_below(4);
	case 3:		/* terminals next to the console */
		return console_terminal() + 1 + random_below(4);
	case 4:		/* flags in the places PAPR likes */
		return 1ull << (63 - random_below(64)) | 1ull << (63 - random_below(64));
	case 5:		/* H_REGISTER_VPA's and others' subfunctions */
		return random_below(8) << 45;
	default:	/* page table entries */
		return random_below(1 << 20);
	}
}

static uint64_t an_edge(void)
{
	const uint64_t power = 1ull << random_below(64);

	switch (random_below(6)) {
	case 0:
		return power;
	case 1:
		return power - 1;
	case 2:
		return -power;
	case 3:
		return ~0ull - random_below(16);
	case 4:
		return 0x7fffffff + random_below(3);
	default:
		return 0;
	}
}

static uint64_t any_value(void)
{
	switch (random_below(8)) {
	case 0:
		return random64();
	case 1:
		return (uint32_t)random64();
	case 2:
		return random_below(32);
	case 3:
		return an_edge();
	case 4:
	case 5:
		return a_number_in_use();
	default:
		return an_address();
	}
}

uint64_t random_value(void)
{
	uint64_t value;

	do
		value = any_value();
	while (!is_expendable(value));
	return value;
}
