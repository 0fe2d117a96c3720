/*
 * Shows that idling works: every way into H_CEDE and out of it, in cases that print one line each.
 *
 * Boot arguments: test= (the name of the one case to run; all but join and doorbell run by default), cpus= (how many of
 * the machine's to use), seed= (1) and steps= (100000) of the case `random`. What is printed says what happened and never
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
	{ "no-such-cpu", case_no_such_cpu, 1, false },
	{ "confer-all", case_confer_all, 1, false },
	{ "ipi", case_ipi, 2, false },
	{ "prod-before", case_prod_before, 2, false },
	{ "prod-after", case_prod_after, 2, false },
	{ "ring", case_ring, 2, false },
	{ "confer-napping", case_confer_napping, 2, false },
	{ "confer-running", case_confer_running, 2, false },
	{ "stop-start", case_stop_start, 2, false },
	{ "join", case_join, 2, true },
	{ "doorbell", case_doorbell, 2, true },
	{ "random", case_random, 1, false },
};

struct remark remark;

static bool is_wanted(const struct idle_case *one, const char *word, size_t length)
{
	if (!word)
		return !one->on_request;
	for (size_t i = 0; i < length; i++)
		if (one->name[i] != word[i])
			return false;
	return one->name[length] == '\0';
}

/* Runs a case and prints its line; whether it passed. */
static bool passes(const struct idle_case *one)
{
	const struct cpu *failed = NULL;

	for (unsigned i = 0; i < cpu_count; i++)
		set(cpus[i].failure, NULL);
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
	size_t length;
	const char *wanted = boot_word("test", &length);
	unsigned failures = 0;

	hcall4(H_SET_MODE, LITTLE, ENDIAN, 0, 0);
	cpus_init(boot_argument("cpus", 0));
	print("idle: %u cpus\n", cpu_count);
	start_others();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (is_wanted(&cases[i], wanted, length))
			failures += !passes(&cases[i]);
	if (failures)
		print("idle: failed %u\n", failures);
	else
		print("idle: done\n");
}
