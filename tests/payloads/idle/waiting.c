/*
 * Waits with an end. A CPU that runs looks at the time itself; one that naps and is never woken cannot, so every CPU
 * looks after all others whenever it comes by, and sends an IPI to one that has slept too long.
 */
#include "idle.h"

/* A CPU that is awake ends its own wait first. */
enum { GRACE_SECONDS = 2 };

void begin_wait(void)
{
	set(this->overdue, 0);
	set(this->deadline, timebase() + LIMIT_SECONDS * timebase_frequency);
}

bool may_wait(void)
{
	return !get(this->overdue) && timebase() < this->deadline;
}

void end_wait(void)
{
	if (get(this->overdue))
		fail("asleep past the limit; seconds", LIMIT_SECONDS);
	set(this->deadline, 0);
}

void guard(void)
{
	for (unsigned i = 0; i < cpu_count; i++) {
		struct cpu *cpu = &cpus[i];
		const uint64_t deadline = get(cpu->deadline);

		if (cpu == this || deadline == 0 || get(cpu->overdue))
			continue;
		if (timebase() > deadline + GRACE_SECONDS * timebase_frequency) {
			set(cpu->overdue, 1);
			send_ipi(cpu);
		}
	}
}

/* Lets a hypervisor that has better to do know. */
void relax(void)
{
	__asm__ volatile("or 1,1,1\n\tor 2,2,2" : : : "memory");
}

void spin(uint64_t ticks)
{
	const uint64_t begin = timebase();

	while (timebase() - begin < ticks)
		relax();
}

bool spin_until(const uint64_t *word, uint64_t value)
{
	begin_wait();
	while (get(*word) < value && may_wait()) {
		guard();
		relax();
	}
	end_wait();
	return get(*word) >= value;
}

bool cede_until(const uint64_t *word, uint64_t value)
{
	begin_wait();
	set_decrementer(DECREMENTER_FAR);
	while (get(*word) < value && may_wait())
		cede();
	end_wait();
	return get(*word) >= value;
}

bool barrier(void)
{
	const uint64_t step = this->step + 1;
	bool all = true;

	set(this->step, step);
	for (unsigned i = 0; i < cpu_count && all; i++)
		all = spin_until(&cpus[i].step, step);
	return all;
}
