/* Events that come at every phase of a nap, from the interrupt controller and from the decrementer. */
#include "phases.h"

void case_ipi(void)
{
	const struct rounds rounds = { .count = sweep_rounds(), .source = &sources[MAIN_SOURCE] };

	rounds_run(&rounds);
}

/* A source that is not the CPU's own. */
void case_device_like(void)
{
	const struct rounds rounds = { .count = sweep_rounds() / 4, .source = &sources[OTHER_SOURCE] };

	rounds_run(&rounds);
}

static void expire_again_and_again(void)
{
	for (uint64_t round = 0; round < sweep_rounds() && !ending(); round++) {
		const uint64_t before = this->decrementers, delay = sweep_delay(round);

		set_decrementer(delay);
		this->announced_at = this->due;
		do
			nap();
		while (this->decrementers == before);
		set(this->done, round + 1);
		if (!wait_for(&cpus[0].done, round + 1))
			return;
	}
}

void case_decrementer(void)
{
	cpus[0].done = 0;
	give_job(sleeper, expire_again_and_again);
	for (uint64_t round = 0; round < sweep_rounds(); round++) {
		int64_t latency;

		if (!wait_for(&sleeper->done, round + 1)) {
			fail("the decrementer does not come; round", round);
			break;
		}
		latency = sleeper->decrementer_at - sleeper->announced_at;
		/* It may come early by what its timer rounds. */
		sweep_note(sweep_delay(round), latency < 0 ? 0 : latency, latency, sleeper->announced_at > sleeper->ceded_at);
		set(this->done, round + 1);
	}
	end_jobs();
}

/* Runs and naps in turn, for lengths around a sweep's width. */
static void be_restless(void)
{
	uint64_t random = random_start(1);

	while (!ending()) {
		const uint64_t before = this->decrementers;

		spin(random_next(&random) % options.width);
		set_decrementer(random_next(&random) % (2 * options.width));
		while (this->decrementers == before)
			nap();
	}
	set_decrementer(DECREMENTER_FAR);
}

void case_two_threads(void)
{
	if (!sibling->starts && !cpu_start(sibling))
		return;
	give_job(sibling, be_restless);
	case_ipi();
}
