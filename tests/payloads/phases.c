/*
 * Shows that no interrupt waits for the end of a poll, at whatever phase of a nap it comes, on a machine that polls before it
 * lets a CPU sleep. It needs XIVE and two CPUs.
 *
 * Boot arguments: test= (names of the cases to run, with commas between them; without it all), width= (how far the events
 * are spread behind the announcement of a nap, in us), steps= and passes= (how many there are), late= (what no event may take, in us), nap=
 * (when the decrementer ends a nap whose event was lost, in us), lost= (how many may be lost in a case; and
 * behind a comma, in one that moves the queue of a CPU that naps), histogram=1 (print latencies by phase).
 */
#include "phases/phases.h"

struct phases_case {
	const char *name;
	void (*run)(void);
	bool needs_sibling, moves_queue;
};

static const struct phases_case cases[] = {
	{ "ipi", case_ipi, false, false },
	{ "device-like", case_device_like, false, false },
	{ "decrementer", case_decrementer, false, false },
	{ "requeue", case_requeue, false, true },
	{ "reset", case_reset, false, false },
	{ "lies", case_lies, false, false },
	{ "scribble", case_scribble, false, false },
	{ "two-threads", case_two_threads, true, false },
};

enum { WIDTH_US = 4000, STEPS = 400, PASSES = 2, LATE_US = 500000, NAP_US = 4000000 };

/* Whether the names behind `test=` have this one. */
static bool is_wanted(const char *name)
{
	const size_t wanted = length_of(name);
	size_t length;
	const char *word = boot_word("test", &length);

	for (size_t from = 0, i = 0; word && i <= length; i++) {
		size_t equal = 0;

		if (i < length && word[i] != ',')
			continue;
		while (equal < i - from && equal < wanted && word[from + equal] == name[equal])
			equal++;
		if (equal == wanted && equal == i - from)
			return true;
		from = i + 1;
	}
	return !word;
}

static const struct cpu *failed_cpu(void)
{
	for (unsigned i = 0; i < cpu_count; i++)
		if (get(cpus[i].failure))
			return &cpus[i];
	return NULL;
}

/* Runs a case and prints its line; whether it passed. */
static bool passes(const struct phases_case *one)
{
	const struct cpu *failed;

	for (unsigned i = 0; i < cpu_count; i++)
		set(cpus[i].failure, NULL);
	sweep_begin(options.lost[one->moves_queue]);
	if (one->needs_sibling && !sibling) {
		print("phases: %s: ok, skipped, no sibling thread\n", one->name);
		return true;
	}
	if (get(sleeper->job))
		fail("the sleeper was lost before", 0);
	else
		one->run();
	failed = failed_cpu();
	if (options.histogram || failed)
		sweep_print_histogram(one->name);
	sweep_print(one->name);
	if (failed)
		print("phases: %s: FAIL cpu %u: %s %ld\n", one->name, (unsigned)(failed - cpus), failed->failure,
		      failed->failed_with);
	else
		print("phases: %s: ok\n", one->name);
	return !failed;
}

static void set_up(void)
{
	enum { ENDIAN = 4, LITTLE = 1 };

	hcall4(H_SET_MODE, LITTLE, ENDIAN, 0, 0);
	if (!xive_init()) {
		print("phases: FAIL there is no XIVE\n");
		os_term("phases: failed");
	}
	cpus_init();
	options = (struct sweep_options){
		.width = microseconds(boot_argument("width", WIDTH_US)),
		.nap = microseconds(boot_argument("nap", NAP_US)),
		.steps = boot_argument("steps", STEPS),
		.passes = boot_argument("passes", PASSES),
		.late = microseconds(boot_argument("late", LATE_US)),
		.histogram = boot_argument("histogram", 0),
	};
	boot_arguments("lost", options.lost, 2);
	print("phases: %u cpus\n", cpu_count);
	if (!sleeper)
		fail("it takes two cpus, there are", cpu_count);
	else if (sources_init() && sources_route())
		cpu_start(sleeper);
	if (this->failure) {
		print("phases: FAIL %s %ld\n", this->failure, this->failed_with);
		os_term("phases: failed");
	}
}

void main(void)
{
	unsigned failures = 0;

	set_up();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (is_wanted(cases[i].name))
			failures += !passes(&cases[i]);
	if (failures)
		print("phases: failed %u\n", failures);
	else
		print("phases: done\n");
}
