/*
 * One event into one nap, again and again:
 *
 *   first CPU   between() ── waits ─── spins for the delay ── before() ── triggers ── waits until the round is done
 *                     ▼        ▲                                             ▼               ▲
 *   sleeper         waits ─ announces the round ── H_CEDE ─ ─ ─ ─ ─ ─ ─ ─  interrupt ── says done
 *
 * An event that is lost leaves the sleeper to its decrementer. Polls are shorter than that, so an event that waits for the end of one
 * is late but not lost.
 */
#include "phases.h"

/* The round that the first CPU is ready for. */
static uint64_t ready;

static void sleep_through(void)
{
	for (uint64_t round = 1; wait_for(&ready, round); round++) {
		const uint64_t wanted = this->events + 1;

		set_decrementer(options.nap);
		this->announced_at = timebase();
		set(this->announced, round);
		do
			nap();
		while (this->events < wanted && !ending());
		set(this->done, round);
	}
}

/* Whether the round went well. */
static bool play(const struct rounds *rounds, uint64_t round)
{
	const uint64_t naps = sleeper->naps, decrementers = sleeper->decrementers;
	uint64_t at, triggered;
	int64_t overdue;

	if (rounds->between && !rounds->between(round))
		return false;
	set(ready, round);
	if (!wait_for(&sleeper->announced, round)) {
		fail("the sleeper does not come; round", round);
		return false;
	}
	while (timebase() - sleeper->announced_at < sweep_delay(round - 1))
		;
	if (rounds->before && !rounds->before(round))
		return false;
	at = timebase();
	xive_trigger(rounds->source);
	triggered = timebase();
	if (!wait_for(&sleeper->done, round)) {
		fail("an event was lost; round", round);
		return false;
	}
	if (sleeper->decrementers != decrementers) {
		sweep_lose();
		return true;
	}
	/* A first CPU that stood still before it triggered makes no event late. */
	overdue = sleeper->event_at - triggered;
	if (overdue > (int64_t)options.late)
		print("phases: late: in nap %lu of its round, called %ld us after the trigger\n", sleeper->naps - naps,
		      (int64_t)(sleeper->ceded_at - at) / (int64_t)microseconds(1));
	sweep_note(at - sleeper->announced_at, sleeper->event_at - at, overdue, at > sleeper->ceded_at);
	return true;
}

void rounds_run(const struct rounds *rounds)
{
	set(ready, 0);
	give_job(sleeper, sleep_through);
	for (uint64_t round = 1; round <= rounds->count && play(rounds, round); round++)
		;
	end_jobs();
}
