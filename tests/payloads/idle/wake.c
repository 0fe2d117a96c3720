/* What one CPU does to another that naps, or is about to: IPI, prod, confer. The second CPU acts on the first one. */
#include "idle.h"

enum { ROUNDS = 20, RING_ROUNDS = 300 };

static struct cpu *const sleeper = &cpus[0], *const other = &cpus[1];

/* Long enough for a CPU to be asleep in the hypervisor, usually; nothing depends on it but what is exercised. */
static uint64_t a_while(void)
{
	return timebase_frequency / 100;
}

/* One nap of this CPU from which something else than the decrementer must wake it. */
static void cede_without_decrementer(const char *what)
{
	const uint64_t before = this->decrementers;

	set_decrementer(DECREMENTER_FAR);
	cede();
	if (this->decrementers != before)
		fail(what, this->decrementers - before);
}

/* A few times what H_CEDE takes. */
static uint64_t window;

/* How the other CPU wakes the sleeper, and what counts the interrupts that come of it. */
static void (*wake)(const struct cpu *);
static const uint64_t *taken;

/* Delays from none to a while, so that the interrupt comes before, at and after the nap. */
static void wake_sleeper(void)
{
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		if (!spin_until(&sleeper->step, round))
			return;
		spin((round - 1) * a_while() / ROUNDS);
		wake(sleeper);
	}
}

static void sleep_until_woken(void)
{
	this->step = 0;
	give_work(other, wake_sleeper);
	for (uint64_t round = 1; round <= ROUNDS && !this->failure; round++) {
		const uint64_t before = *taken;

		set(this->step, round);
		begin_wait();
		while (get(*taken) == before && may_wait() && !this->failure)
			cede_without_decrementer("the interrupt did not end the nap, but the decrementer:");
		end_wait();
		if (*taken != before + 1)
			fail("interrupts taken:", *taken - before);
	}
	set(this->step, ROUNDS);
	finish_work();
}

void case_ipi(void)
{
	wake = send_ipi;
	taken = &this->ipis;
	sleep_until_woken();
}

static void send_doorbell(const struct cpu *cpu)
{
	const uint64_t message = 5ull << 27 | cpu->thread;

	__asm__ volatile("sync\n\tmsgsndp %0" : : "r"(message) : "memory");
}

void case_doorbell(void)
{
	if (other->core != sleeper->core) {
		remark.word = "skipped, no sibling thread";
		return;
	}
	this->tries = true;
	send_doorbell(this);
	this->tries = false;
	if (this->refused) {
		remark.word = "no such instruction";
		return;
	}
	cede_without_decrementer("the own doorbell did not end the nap, but the decrementer:");
	wake = send_doorbell;
	taken = &this->doorbells;
	sleep_until_woken();
}

static void prod(const struct cpu *cpu)
{
	const int64_t result = hcall4(H_PROD, cpu->server, 0, 0, 0);

	if (result != H_SUCCESS)
		fail("H_PROD returned", result);
}

/* A prod comes first: the next nap is none. */
static void cede_after_prod(void)
{
	const uint64_t ipis = this->ipis;

	cede_without_decrementer("the prod was lost; decrementer interrupts:");
	if (this->ipis != ipis)
		fail("IPIs taken:", this->ipis - ipis);
}

void case_prod_self(void)
{
	for (int round = 0; round < ROUNDS && !this->failure; round++) {
		drain_prods();
		prod(this);
		cede_after_prod();
	}
}

static void prod_first(void)
{
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		if (!spin_until(&sleeper->step, round))
			return;
		prod(sleeper);
		set(this->step, round);
	}
}

void case_prod_before(void)
{
	this->step = 0;
	give_work(other, prod_first);
	for (uint64_t round = 1; round <= ROUNDS && !this->failure; round++) {
		drain_prods();
		set(this->step, round);
		if (!spin_until(&other->step, round))
			fail("no prod; round", round);
		cede_after_prod();
	}
	set(this->step, ROUNDS);
	finish_work();
}

/* How long the prod waits in a round. */
static uint64_t (*delay)(uint64_t round);

/* Steps are doubled: odd when the prod is about to be, even when it was. */
static void prod_later(void)
{
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		if (!spin_until(&sleeper->step, round))
			return;
		spin(delay(round));
		set(this->step, 2 * round - 1);
		prod(sleeper);
		set(this->step, 2 * round);
	}
}

static void sleep_until_prodded(void)
{
	this->step = 0;
	give_work(other, prod_later);
	for (uint64_t round = 1; round <= ROUNDS && !this->failure; round++) {
		set(this->step, round);
		begin_wait();
		do {
			cede_without_decrementer("the prod did not end the nap, but the decrementer:");
		} while (get(other->step) < 2 * round - 1 && may_wait() && !this->failure);
		end_wait();
		if (!this->failure && !spin_until(&other->step, 2 * round))
			fail("no prod; round", round);
		drain_prods();
	}
	set(this->step, ROUNDS);
	finish_work();
}

static uint64_t long_delay(uint64_t round)
{
	(void)round;
	return a_while();
}

void case_prod_after(void)
{
	delay = long_delay;
	sleep_until_prodded();
}

/* From none to what H_CEDE takes a few times. */
static uint64_t short_delay(uint64_t round)
{
	return (round - 1) * window / ROUNDS;
}

void case_prod_race(void)
{
	window = window_ticks();
	delay = short_delay;
	sleep_until_prodded();
}

/* Everybody naps; whoever is woken wakes the next one. The token is the step, which the barrier leaves at 1. */
static void pass_on(void)
{
	const unsigned me = index_of(this);
	struct cpu *next = &cpus[(me + 1) % cpu_count];
	const uint64_t ipis = this->ipis;

	if (!barrier())
		return;
	if (me == 0) {
		spin(a_while());
		set(next->step, 2);
		send_ipi(next);
	}
	for (uint64_t round = 1; round <= RING_ROUNDS; round++) {
		begin_wait();
		while (this->ipis < ipis + round && may_wait() && !this->failure)
			cede_without_decrementer("the IPI did not end the nap, but the decrementer:");
		end_wait();
		if (get(this->step) != round + 1 || this->ipis != ipis + round) {
			fail("the token did not come; round", round);
			return;
		}
		if (me == 0 && round == RING_ROUNDS)
			return;
		set(next->step, me == 0 ? round + 2 : round + 1);
		send_ipi(next);
	}
}

void case_ring(void)
{
	on_all(pass_on);
}

static void confer(int64_t server, uint32_t yield_count, int64_t expected)
{
	const int64_t result = hcall4(H_CONFER, server, yield_count, 0, 0);

	if (result != expected)
		fail("H_CONFER returned", result);
}

/* Without a VPA no yield count is right; both parities are asked for. */
void case_confer_napping(void)
{
	for (int round = 0; round < ROUNDS; round++) {
		spin(a_while() / 10);
		confer(other->server, 0, H_SUCCESS);
		confer(other->server, 1, H_SUCCESS);
	}
}

static void run_on(void)
{
	set(this->step, 1);
	spin_until(&sleeper->step, 1);
}

void case_confer_running(void)
{
	this->step = 0;
	give_work(other, run_on);
	if (!spin_until(&other->step, 1))
		fail("nobody runs on server", other->server);
	for (int round = 0; round < ROUNDS; round++) {
		confer(other->server, 0, H_SUCCESS);
		confer(other->server, 1, H_SUCCESS);
	}
	set(this->step, 1);
	finish_work();
}

void case_confer_all(void)
{
	for (int round = 0; round < ROUNDS; round++)
		confer(-1, 0, H_SUCCESS);
}

/* A server number that no machine of ours has. */
enum { NO_CPU = 0x7fe };

void case_prod_nobody(void)
{
	const int64_t result = hcall4(H_PROD, NO_CPU, 0, 0, 0);

	if (result != H_PARAMETER)
		fail("H_PROD returned", result);
}

void case_confer_nobody(void)
{
	confer(NO_CPU, 0, H_PARAMETER);
}
