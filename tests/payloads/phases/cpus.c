/*
 * The CPUs: the first one directs, the second one sleeps and is woken, a third may keep that one's core busy. Those that wait for
 * a job run, so that no nap is taken but those that are meant.
 */
#include "phases.h"

enum { LIMIT_SECONDS = 20 };

enum { H_REGISTER_VPA = 0xdc };
enum { VPA_SIZE = 640, VPA_LENGTH_AT = 4, VPA_SPACING = 4096 };
#define VPA_REGISTER (1ull << 45)

extern const char interrupt[], secondary_entry[];

struct cpu cpus[MAX_CPUS];
unsigned cpu_count;
uint64_t timebase_frequency = 512000000;
struct cpu *sleeper, *sibling;

static uint8_t stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(16)));
static uint8_t vpas[MAX_CPUS][VPA_SPACING] __attribute__((aligned(VPA_SPACING)));
static uint32_t start_cpu_token;
static uint64_t end;

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
	}
	++*cores;
}

/* The sleeper is on another core than the first CPU, if there is one. */
static void cast(void)
{
	for (unsigned i = 1; i < cpu_count; i++) {
		struct cpu *cpu = &cpus[i];

		if (!sleeper || (sleeper->core == cpus[0].core && cpu->core != cpus[0].core))
			sleeper = cpu;
		else if (!sibling && cpu->core == sleeper->core)
			sibling = cpu;
	}
	if (sibling && sibling->core != sleeper->core)
		sibling = NULL;
}

/* The hypervisor counts there whether the CPU runs, which a poller wants to know of the others of its core. */
static void register_vpa(void)
{
	uint8_t *vpa = vpas[this - cpus];
	int64_t result;

	vpa[VPA_LENGTH_AT] = VPA_SIZE >> 8;
	vpa[VPA_LENGTH_AT + 1] = VPA_SIZE & 0xff;
	result = hcall4(H_REGISTER_VPA, VPA_REGISTER, this->server, real(vpa), 0);
	if (result != H_SUCCESS)
		fail("H_REGISTER_VPA returned", result);
}

void cpus_init(void)
{
	uint32_t cores = 0;

	fdt_visit("/cpus/*", add_core, &cores);
	for (unsigned i = 0; i < cpu_count; i++)
		cpus[i].stack_top = (uint64_t)stacks[i + 1];
	cast();
	start_cpu_token = rtas_token("start-cpu");
	this = &cpus[0];
	vectors_install(interrupt);
	interrupts_init();
	register_vpa();
}

void secondary(void) __attribute__((noreturn));
void secondary(void)
{
	enum { ENDIAN = 4, LITTLE = 1 };

	hcall4(H_SET_MODE, LITTLE, ENDIAN, 0, 0);
	interrupts_init();
	register_vpa();
	set(this->starts, this->starts + 1);
	for (;;) {
		while (!get(this->job))
			spin(microseconds(1));
		this->job();
		set(this->job, NULL);
	}
}

bool cpu_start(struct cpu *cpu)
{
	const uint32_t args[3] = { cpu->server, real(secondary_entry), real(cpu) };
	const int32_t status = rtas_call(start_cpu_token, 3, args, 1, NULL);

	set(end, 0);
	if (status != 0)
		fail("start-cpu returned", status);
	else if (!wait_for(&cpu->starts, 1))
		fail("start-cpu did not start server", cpu->server);
	return !this->failure;
}

void give_job(struct cpu *cpu, void (*job)(void))
{
	set(end, 0);
	cpu->announced = cpu->done = 0;
	set(cpu->job, job);
}

bool ending(void)
{
	return get(end);
}

void end_jobs(void)
{
	const uint64_t begin = timebase();

	set(end, 1);
	for (unsigned i = 1; i < cpu_count; i++)
		while (get(cpus[i].job)) {
			if (timebase() - begin > LIMIT_SECONDS * timebase_frequency) {
				fail("no end of the job on server", cpus[i].server);
				return;
			}
			spin(microseconds(1));
		}
}

void spin(uint64_t ticks)
{
	const uint64_t begin = timebase();

	do
		__asm__ volatile("" : : : "memory");
	while (timebase() - begin < ticks);
}

bool wait_for(const uint64_t *word, uint64_t value)
{
	const uint64_t begin = timebase();

	while (get(*word) < value)
		if (ending() || timebase() - begin > LIMIT_SECONDS * timebase_frequency)
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
