/*
 * The CPUs: which there are, how they start, and how the first one gives the others work.
 *
 *            start-cpu               give_work              work done
 *   stopped ───────────► idling ───────────────► working ──────────────► idling
 *                          ▲ │ an IPI, or the decrementer every few seconds
 *                          └─┘
 */
#include "idle.h"

extern const char interrupt[], secondary_entry[];

struct cpu cpus[MAX_CPUS];
unsigned cpu_count;
uint64_t timebase_frequency = 512000000;

static uint8_t stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(16)));
static uint32_t start_cpu_token;

static void add_core(const char *name, const uint8_t *value, uint32_t length, void *context)
{
	uint32_t *cores = context;

	if (same(name, "timebase-frequency") && length == 4)
		timebase_frequency = get_be32(value);
	if (!same(name, "ibm,ppc-interrupt-server#s"))
		return;
	for (uint32_t i = 0; i < length / 4 && cpu_count < MAX_CPUS; i++) {
		struct cpu *cpu = &cpus[cpu_count++];

		cpu->server = get_be32(value + 4 * i);
		cpu->core = *cores;
		cpu->thread = i;
	}
	++*cores;
}

/* Machines list them in any order; the first CPU is the one that runs already, with the lowest number. */
static void sort(void)
{
	for (unsigned i = 1; i < cpu_count; i++)
		for (unsigned j = i; j > 0 && cpus[j].server < cpus[j - 1].server; j--) {
			struct cpu swap = cpus[j];

			cpus[j] = cpus[j - 1];
			cpus[j - 1] = swap;
		}
}

void cpus_init(uint64_t wanted)
{
	uint32_t cores = 0;

	fdt_visit("/cpus/*", add_core, &cores);
	sort();
	if (wanted && wanted < cpu_count)
		cpu_count = wanted;
	for (unsigned i = 0; i < cpu_count; i++)
		cpus[i].stack_top = (uint64_t)stacks[i + 1];
	start_cpu_token = rtas_token("start-cpu");
	this = &cpus[0];
	vectors_install(interrupt);
	interrupts_init();
}

/* What a CPU does for good once it was started: nothing, or what it is told to. */
void secondary(void) __attribute__((noreturn));
void secondary(void)
{
	interrupts_init();
	set(this->starts, this->starts + 1);
	for (;;) {
		const uint64_t ipis = this->ipis;

		while (!get(this->work) || this->ipis == ipis) {
			set_decrementer(DECREMENTER_FAR);
			cede();
		}
		this->work();
		set(this->work, NULL);
	}
}

bool cpu_start(struct cpu *cpu)
{
	const uint32_t args[3] = { cpu->server, real(secondary_entry), real(cpu) };
	const uint64_t starts = cpu->starts;
	const int32_t status = rtas_call(start_cpu_token, 3, args, 1, NULL);

	if (status != 0) {
		fail("start-cpu returned", status);
		return false;
	}
	if (spin_until(&cpu->starts, starts + 1))
		return true;
	fail("start-cpu did not start server", cpu->server);
	return false;
}

void give_work(struct cpu *cpu, void (*work)(void))
{
	cpu->step = 0;
	set(cpu->work, work);
	send_ipi(cpu);
}

void finish_work(void)
{
	for (unsigned i = 1; i < cpu_count; i++) {
		begin_wait();
		while (get(cpus[i].work) && may_wait()) {
			guard();
			relax();
		}
		end_wait();
		if (get(cpus[i].work))
			fail("no end on server", cpus[i].server);
	}
}

void on_all(void (*work)(void))
{
	this->step = 0;
	for (unsigned i = 1; i < cpu_count; i++)
		give_work(&cpus[i], work);
	work();
	finish_work();
}

bool all_answer(void)
{
	for (unsigned i = 1; i < cpu_count; i++)
		if (get(cpus[i].work))
			return false;
	return true;
}

void fail(const char *what, int64_t with)
{
	if (get(this->failure))
		return;
	this->failed_with = with;
	set(this->failure, what);
}
