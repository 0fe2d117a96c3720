/*
 * Idle periods of many lengths, in phases: short ones that a poll catches, ones about as long as the longest poll, and
 * long ones that no poll catches. Then it idles for good. For the host to record what KVM makes of them.
 */
#include "lib/pseries.h"

/* Sets the decrementer far into the future and turns MSR[EE] off. */
extern const char take_decrementer[];

enum {
	TICKS_PER_US = 512, /* the timebase of every POWER server */
	LONGEST_US = 4000000,
};

/* The lengths are spread evenly between the two. */
static const struct phase {
	uint32_t periods, from_us, to_us;
} phases[] = {
	{ 60, 300, 6000 },
	{ 200, 6000, 30000 },
	{ 10, 30000, 90000 },
	{ 100, 3000, 48000 },
};

/* H_CEDE turns MSR[EE] on; the interrupt turns it off again. */
static void idle(uint64_t us)
{
	__asm__ volatile("mtdec %0" : : "r"(us * TICKS_PER_US));
	hcall4(H_CEDE, 0, 0, 0, 0);
}

void main(void)
{
	const uint64_t rounds = boot_argument("rounds", 1);
	uint64_t random = random_start(1);

	vectors_install(take_decrementer);
	print("loads: begin\n");
	for (uint64_t round = 0; round < rounds; round++) {
		for (size_t n = 0; n < sizeof phases / sizeof phases[0]; n++) {
			const struct phase *phase = &phases[n];

			for (uint32_t i = 0; i < phase->periods; i++)
				idle(phase->from_us + random_next(&random) % (phase->to_us - phase->from_us));
		}
		print("loads: round %u of %u\n", (unsigned)round + 1, (unsigned)rounds);
	}
	print("loads: done\n");
	for (;;)
		idle(LONGEST_US);
}
