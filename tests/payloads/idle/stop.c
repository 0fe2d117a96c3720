/* CPUs that leave and come back: stop-self and start-cpu, H_JOIN. */
#include "idle.h"

enum { STOP_ROUNDS = 50, JOIN_ROUNDS = 50 };
enum { STOPPED = 0, NOT_STOPPED = 2 };

static struct cpu *const other = &cpus[1];

/* query-cpu-stopped-state: -1 if the call itself failed. */
static int stopped_state(const struct cpu *cpu)
{
	const uint32_t args[1] = { cpu->server };
	uint32_t rets[2];

	if (rtas_call(rtas_token("query-cpu-stopped-state"), 1, args, 2, rets) != 0)
		return -1;
	return rets[1];
}

/* Idles a little, then stops; its next sign of life is another start. */
static void stop_self(void)
{
	int32_t status;

	cede_for_decrementer(timebase_frequency / 2000);
	interrupts_end();
	set(this->work, NULL);
	status = rtas_call(rtas_token("stop-self"), 0, NULL, 1, NULL);
	interrupts_init();
	fail("stop-self returned", status);
}

static bool comes_to(const struct cpu *cpu, int state)
{
	begin_wait();
	while (stopped_state(cpu) != state && may_wait())
		relax();
	end_wait();
	if (stopped_state(cpu) == state)
		return true;
	fail("query-cpu-stopped-state says", stopped_state(cpu));
	return false;
}

void case_stop_start(void)
{
	for (int round = 0; round < STOP_ROUNDS; round++) {
		give_work(other, stop_self);
		finish_work();
		if (!comes_to(other, STOPPED) || !cpu_start(other) || !comes_to(other, NOT_STOPPED))
			return;
	}
}

static int64_t joined[MAX_CPUS];

/* All join but the last one, who is told so and prods the others. */
static void join(void)
{
	for (int round = 0; round < JOIN_ROUNDS; round++) {
		unsigned continued = 0;

		drain_prods();
		if (!barrier())
			return;
		joined[index_of(this)] = hcall4(H_JOIN, 0, 0, 0, 0);
		if (joined[index_of(this)] == H_CONTINUE)
			for (unsigned i = 0; i < cpu_count; i++)
				if (&cpus[i] != this)
					hcall4(H_PROD, cpus[i].server, 0, 0, 0);
		if (!barrier()) {
			fail("not all came back from H_JOIN; round", round);
			return;
		}
		for (unsigned i = 0; i < cpu_count; i++) {
			continued += joined[i] == H_CONTINUE;
			if (joined[i] != H_CONTINUE && joined[i] != H_SUCCESS)
				fail("H_JOIN returned", joined[i]);
		}
		if (continued != 1)
			fail("CPUs that H_JOIN told to continue:", continued);
		if (!barrier() || this->failure)
			return;
	}
}

void case_join(void)
{
	/* With a prod pending the call returns, whoever has joined. */
	hcall4(H_PROD, this->server, 0, 0, 0);
	if (hcall4(H_JOIN, 0, 0, 0, 0) == H_FUNCTION) {
		remark.word = "H_FUNCTION";
		return;
	}
	on_all(join);
}
