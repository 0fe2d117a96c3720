/* What a guest may do to a queue while its CPU naps: move it, lose it, lie about it, write there. */
#include "phases.h"

enum { NO_CPU = 0x7fe, NO_SOURCE = 0x7fffff };

/* Every so many ticks of a scribbler's round the sleeper looks for itself. */
enum { SCRIBBLES = 2000, SCRIBBLE_ROUNDS = 20, SCRIBBLER_DECREMENTER_US = 20000 };

static bool replace(uint64_t round)
{
	(void)round;
	return replace_queue();
}

void case_requeue(void)
{
	const struct rounds rounds = { .count = sweep_rounds() / 4, .source = &sources[MAIN_SOURCE], .before = replace };

	rounds_run(&rounds);
}

/* While the sleeper is awake: KVM wakes no CPU that naps over a reset, before its decrementer does. */
static bool reset_all(uint64_t round)
{
	(void)round;
	return expect("H_INT_RESET returned", xive_reset(), H_SUCCESS) && sources_route();
}

void case_reset(void)
{
	const struct rounds rounds = { .count = sweep_rounds() / 8, .source = &sources[MAIN_SOURCE], .between = reset_all };

	rounds_run(&rounds);
}

static const struct lie {
	const char *what;
	uint64_t nr;
	uint64_t args[5];
	int64_t answer;
} lies[] = {
	{ "a queue's flags", H_INT_SET_QUEUE_CONFIG, { 2, 0, PRIORITY, 0, 0 }, H_PARAMETER },
	{ "a queue for no CPU", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, NO_CPU, PRIORITY, 0, 0 }, H_P2 },
	{ "a queue of priority 7", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, 7, 0, 0 }, H_P3 },
	{ "a queue of priority 255", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, 255, 0, 0 }, H_P3 },
	{ "a queue of priority -1", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, -1, 0, 0 }, H_P3 },
	{ "a queue beyond memory", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 1ull << 45, 16 }, H_P4 },
	{ "a queue at the end", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, -65536, 16 }, H_P4 },
	{ "a queue at -1", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, -1, 16 }, H_P4 },
	{ "a queue askew", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 0x401000, 16 }, H_P4 },
	{ "a queue of 4 KiB", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 0x400000, 12 }, H_P5 },
	{ "a queue of 2 MiB", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 0x400000, 21 }, H_P5 },
	{ "a queue of 2^64", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 0x400000, 64 }, H_P5 },
	{ "a queue of 2^-1", H_INT_SET_QUEUE_CONFIG, { XIVE_ALWAYS_NOTIFY, 0, PRIORITY, 0x400000, -1 }, H_P5 },
	{ "no source", H_INT_GET_SOURCE_INFO, { 0, NO_SOURCE, 0, 0, 0 }, H_P2 },
	{ "a route of no source", H_INT_SET_SOURCE_CONFIG, { XIVE_SET_EISN, NO_SOURCE, 0, PRIORITY, 1 }, H_P2 },
	{ "a route to no CPU", H_INT_SET_SOURCE_CONFIG, { XIVE_SET_EISN, 0, NO_CPU, PRIORITY, 1 }, H_P3 },
	{ "a route of priority 7", H_INT_SET_SOURCE_CONFIG, { XIVE_SET_EISN, 0, 0, 7, 1 }, H_P4 },
	{ "a route with a wide number", H_INT_SET_SOURCE_CONFIG, { XIVE_SET_EISN, 0, 0, PRIORITY, 1ull << 31 }, H_P5 },
};

/* The sleeper is lied about wherever a CPU is named by 0. */
static bool lie(uint64_t round)
{
	const struct lie *lie = &lies[(round - 1) % (sizeof(lies) / sizeof(lies[0]))];
	uint64_t args[9] = { lie->args[0], lie->args[1], lie->args[2], lie->args[3], lie->args[4] };

	if (lie->nr == H_INT_SET_QUEUE_CONFIG && args[1] == 0)
		args[1] = sleeper->server;
	if (lie->nr == H_INT_SET_SOURCE_CONFIG && args[1] == 0)
		args[1] = sources[MAIN_SOURCE].lisn;
	if (lie->nr == H_INT_SET_SOURCE_CONFIG && args[2] == 0)
		args[2] = sleeper->server;
	return expect(lie->what, hcall9(lie->nr, args, args), lie->answer);
}

/* Each is refused, and the queue that is there goes on. */
void case_lies(void)
{
	const struct rounds rounds = { .count = 2 * sizeof(lies) / sizeof(lies[0]), .source = &sources[MAIN_SOURCE], .before = lie };

	rounds_run(&rounds);
}

static void nap_in_nonsense(void)
{
	while (!ending()) {
		set_decrementer(microseconds(SCRIBBLER_DECREMENTER_US));
		nap();
		set(this->done, this->done + 1);
	}
	set_decrementer(DECREMENTER_FAR);
}

/* Writes anything anywhere into the queue while the sleeper naps, and triggers now and then. */
static void scribble(void)
{
	uint64_t random = random_start(2);
	uint32_t *const page = queue_page();

	for (unsigned i = 0; i < SCRIBBLES; i++) {
		const uint64_t word = random_next(&random);

		set(page[word % (XIVE_QUEUE_SIZE / sizeof(uint32_t))], word >> 32);
		if (i % 500 == 0)
			xive_trigger(&sources[MAIN_SOURCE]);
		spin(options.width / 100);
	}
}

void case_scribble(void)
{
	const struct rounds rounds = { .count = options.steps / 4, .source = &sources[MAIN_SOURCE] };

	for (unsigned round = 0; round < SCRIBBLE_ROUNDS && !this->failure; round++) {
		set(sleeper->blind, true);
		give_job(sleeper, nap_in_nonsense);
		scribble();
		if (!wait_for(&sleeper->done, 1))
			fail("the sleeper does not come back; round", round);
		end_jobs();
		/* What was triggered last may not have been taken yet. Nothing is left of it once the source was ended. */
		if (!replace_queue())
			return;
		xive_end(&sources[MAIN_SOURCE]);
		set(sleeper->blind, false);
	}
	if (!this->failure)
		rounds_run(&rounds);
}
