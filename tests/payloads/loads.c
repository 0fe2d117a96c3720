/*
 * Idle periods of many lengths, in phases: short ones that a poll catches, ones about as long as the longest poll, and
 * long ones that no poll catches. Then it idles for good. For the host to record what KVM makes of them.
 */
#include "lib/pseries.h"

extern const uint32_t decrementer_vector[], decrementer_vector_end[];

enum {
	DECREMENTER_VECTOR = 0x900,
	TICKS_PER_US = 512, /* the timebase of every POWER server */
	LONGEST_US = 4000000,
};

/* The lengths are spread evenly between the two. */
static const struct phase {
	uint32_t periods, from_us, to_us;
} phases[] = {
	{ 100, 100, 2000 },
	{ 150, 2000, 10000 },
	{ 20, 10000, 30000 },
	{ 100, 1000, 16000 },
};

static void install_vector(void)
{
	volatile uint32_t *to = (volatile uint32_t *)DECREMENTER_VECTOR;

	for (const uint32_t *from = decrementer_vector; from < decrementer_vector_end; from++)
		*to++ = *from;
	for (uint64_t line = DECREMENTER_VECTOR; line < (uint64_t)to; line += 32)
		__asm__ volatile("dcbst 0,%0\n\tsync\n\ticbi 0,%0" : : "r"(line) : "memory");
	__asm__ volatile("isync" : : : "memory");
}

/* H_CEDE turns MSR[EE] on; the vector turns it off again. */
static void idle(uint64_t us)
{
	__asm__ volatile("mtdec %0" : : "r"(us * TICKS_PER_US));
	hcall4(H_CEDE, 0, 0, 0, 0);
}

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

void main(void)
{
	const uint64_t rounds = boot_argument("rounds", 3);

	install_vector();
	for (uint64_t round = 0; round < rounds; round++) {
		for (size_t n = 0; n < sizeof phases / sizeof phases[0]; n++) {
			const struct phase *phase = &phases[n];

			for (uint32_t i = 0; i < phase->periods; i++)
				idle(phase->from_us + next_random() % (phase->to_us - phase->from_us));
		}
		print("loads: round %u of %u\n", (unsigned)round + 1, (unsigned)rounds);
	}
	print("loads: done\n");
	for (;;)
		idle(LONGEST_US);
}
