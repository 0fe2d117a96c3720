/* H_CEDE and what ends it on the same CPU: the decrementer, an IPI that is pending already. */
#include "idle.h"

/* A hypervisor may end a nap without a reason now and then. One that does it more often does not nap. */
enum { MAX_IN_VAIN = 10 };

enum { WINDOW_STEPS = 4000 };

void case_cede_decrementer(void)
{
	for (int i = 0; i < 5 && !this->failure; i++) {
		const int64_t in_vain = cede_for_decrementer(timebase_frequency / 20);

		if (in_vain > MAX_IN_VAIN)
			fail("returns with nothing pending:", in_vain);
	}
}

/* The decrementer has run out before the call. */
void case_cede_overdue(void)
{
	for (int i = 0; i < 100 && !this->failure; i++) {
		const uint64_t before = this->decrementers;

		set_decrementer(0);
		spin(timebase_frequency / 100000);
		cede();
		if (this->decrementers != before + 1)
			fail("decrementer interrupts taken:", this->decrementers - before);
	}
}

void case_cede_pending(void)
{
	for (int i = 0; i < 100 && !this->failure; i++) {
		const uint64_t ipis = this->ipis, decrementers = this->decrementers;

		set_decrementer(DECREMENTER_FAR);
		send_ipi(this);
		if (this->ipis != ipis)
			fail("an interrupt while MSR[EE] was off; round", i);
		cede();
		if (this->ipis != ipis + 1)
			fail("IPIs taken:", this->ipis - ipis);
		if (this->decrementers != decrementers)
			fail("the decrementer ended the nap; round", i);
	}
}

/* The time that H_CEDE takes when it does not nap. */
static uint64_t ticks_of_a_cede(void)
{
	uint64_t least = ~0ull;

	for (int i = 0; i < 20; i++) {
		const uint64_t begin = timebase();

		set_decrementer(0);
		cede();
		if (timebase() - begin < least)
			least = timebase() - begin;
	}
	return least;
}

/* Decrementer values around which it runs out anywhere from before the call to within the nap. */
uint64_t window_ticks(void)
{
	return 4 * ticks_of_a_cede() + 16;
}

void case_decrementer_window(void)
{
	const uint64_t window = window_ticks();

	for (uint64_t i = 0; i < WINDOW_STEPS; i++)
		if (cede_for_decrementer(i * window / WINDOW_STEPS) < 0)
			return;
}
