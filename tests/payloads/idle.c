/*
 * Shows that idling works: every way into H_CEDE and out of it, in cases that print one line each.
 *
 * Boot arguments: test= (names of the cases to run, with commas between them; all but join and doorbell run by default),
 * skip= (names not to run), cpus= (how many of the machine's to use), seed= (1) and steps= (100000) of the case `random`. What is printed says what happened and never
 * how long it took, so that two hypervisors' outputs can be compared as they are.
 */
#include "idle/idle.h"

struct idle_case {
	const char *name;
	void (*run)(void);
	unsigned cpus;		/* how many it needs */
	bool on_request;
};

static const struct idle_case cases[] = {
	{ "cede-decrementer", case_cede_decrementer, 1, false },
	{ "cede-overdue", case_cede_overdue, 1, false },
	{ "cede-pending", case_cede_pending, 1, false },
	{ "decrementer-window", case_decrementer_window, 1, false },
	{ "prod-self", case_prod_self, 1, false },
	{ "prod-nobody", case_prod_nobody, 1, false },
	{ "confer-nobody", case_confer_nobody, 1, false },
	{ "confer-all", case_confer_all, 1, false },
	{ "ipi", case_ipi, 2, false },
	{ "prod-before", case_prod_before, 2, false },
	{ "prod-after", case_prod_after, 2, false },
	{ "prod-race", case_prod_race, 2, false },
	{ "ring", case_ring, 2, false },
	{ "confer-napping", case_confer_napping, 2, false },
	{ "confer-running", case_confer_running, 2, false },
	{ "stop-start", case_stop_start, 2, false },
	{ "join", case_join, 2, true },
	{ "doorbell", case_doorbell, 2, true },
	{ "random", case_random, 1, false },
};

struct remark remark;

/* Whether a boot argument's names, with commas between them, have this one. */
static bool names(const char *key, const char *name)
{
	const size_t wanted = length_of(name);
	size_t length;
	const char *word = boot_word(key, &length);

	for (size_t from = 0, i = 0; i <= length && word; i++) {
		if (i < length && word[i] != ',')
			continue;
		if (i - from == wanted) {
			size_t equal = 0;

			while (equal < wanted && word[from + equal] == name[equal])
				equal++;
			if (equal == wanted)
				return true;
		}
		from = i + 1;
	}
	return false;
}

static bool is_wanted(const struct idle_case *one)
{
	size_t length;
	const bool chosen = boot_word("test", &length) ? names("test", one->name) : !one->on_request;

	return chosen && !names("skip", one->name);
}

/* Runs a case and prints its line; whether it passed. */
static bool passes(const struct idle_case *one)
{
	const struct cpu *failed = NULL;

	for (unsigned i = 0; i < cpu_count; i++)
		set(cpus[i].failure, NULL);
	drain_prods();
	remark = (struct remark){ .word = "ok" };
	if (cpu_count < one->cpus)
		remark.word = "skipped, too few cpus";
	else if (one->cpus > 1 && !all_answer())
		fail("a cpu was lost before", 0);
	else
		one->run();
	for (unsigned i = 0; i < cpu_count && !failed; i++)
		if (get(cpus[i].failure))
			failed = &cpus[i];
	if (failed)
		print("idle: %s: FAIL cpu %u: %s %ld\n", one->name, index_of(failed), failed->failure, failed->failed_with);
	else if (remark.is_random)
		print("idle: %s: %s, %lu steps, checksum 0x%lx\n", one->name, remark.word, remark.steps, remark.checksum);
	else
		print("idle: %s: %s\n", one->name, remark.word);
	return !failed;
}

static void start_others(void)
{
	for (unsigned i = 1; i < cpu_count; i++)
		if (!cpu_start(&cpus[i])) {
			print("idle: FAIL %s %ld\n", this->failure, this->failed_with);
			os_term("idle: failed");
		}
}

void main(void)
{
	enum { ENDIAN = 4, LITTLE = 1 };
	unsigned failures = 0;

	hcall4(H_SET_MODE, LITTLE, ENDIAN, 0, 0);
	cpus_init(boot_argument("cpus", 0));
	print("idle: %u cpus\n", cpu_count);
	start_others();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (is_wanted(&cases[i]))
			failures += !passes(&cases[i]);
	if (failures)
		print("idle: failed %u\n", failures);
	else
		print("idle: done\n");
}
