/*
 * Random steps on all CPUs: naps that the decrementer ends, messages with an IPI, questions whose answer is waited for in
 * a nap, prods.
 *
 * A message adds to the sum that its sender keeps for its receiver; the receiver copies the sum when it takes an IPI.
 * IPIs may become one, but at the end every sum must have arrived by one. What is sent depends on the sender's random
 * sequence alone, and so does the checksum of what was received.
 */
#include "idle.h"

/* A sum has the number of messages in its low bits. */
enum { COUNT_BITS = 24 };

/* How far the decrementer is at most when a nap begins. */
static uint64_t window;

void answer_messages(void)
{
	const unsigned me = index_of(this);

	for (unsigned i = 0; i < cpu_count; i++) {
		const uint64_t asked = get(cpus[i].asked[me]);

		set(this->taken[i], get(cpus[i].sent[me]));
		if (asked != this->answered[i]) {
			set(this->answered[i], asked);
			send_ipi(&cpus[i]);
		}
	}
}

static uint64_t below(uint64_t bound)
{
	return (random_next(&this->random) >> 16) % bound;
}

static void send_message(struct cpu *to)
{
	set(this->sent[index_of(to)], this->sent[index_of(to)] + (below(1 << 20) << COUNT_BITS) + 1);
	send_ipi(to);
}

/* Only the answer's IPI ends the wait in time. */
static void ask(struct cpu *whom)
{
	const unsigned me = index_of(this);
	const uint64_t question = this->asked[index_of(whom)] + 1, decrementers = this->decrementers;

	set(this->asked[index_of(whom)], question);
	send_ipi(whom);
	if (!cede_until(&whom->answered[me], question))
		fail("no answer from cpu", index_of(whom));
	else if (this->decrementers != decrementers)
		fail("an answer came and did not end the nap; from cpu", index_of(whom));
}

static void step(void)
{
	struct cpu *whom = &cpus[below(cpu_count)];
	const uint64_t kind = below(8), ticks = below(1 << 16) * window >> 16;

	switch (kind) {
	case 0:
	case 1:
		cede_for_decrementer(ticks);
		break;
	case 2:
		cede_for_decrementer(0);
		break;
	case 3:
	case 4:
		send_message(whom);
		break;
	case 5:
		hcall4(H_PROD, whom->server, 0, 0, 0);
		break;
	case 6:
		ask(whom);
		break;
	case 7:	/* the nap that a message to oneself must end */
		send_message(this);
		if (!cede_until(&this->taken[index_of(this)], this->sent[index_of(this)]))
			fail("own message not received by cpu", index_of(this));
		break;
	}
}

static bool anybody_failed(void)
{
	for (unsigned i = 0; i < cpu_count; i++)
		if (get(cpus[i].failure))
			return true;
	return false;
}

static unsigned missing_messages(void)
{
	const uint64_t mask = (1 << COUNT_BITS) - 1;
	unsigned missing = 0;

	for (unsigned i = 0; i < cpu_count; i++)
		missing += (get(cpus[i].sent[index_of(this)]) - get(this->taken[i])) & mask;
	return missing;
}

/* What changes as long as anybody gets anywhere. */
static uint64_t progress(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < cpu_count; i++)
		sum += get(cpus[i].steps_done) + get(cpus[i].ipis);
	return sum;
}

static bool everybody_is_done(void)
{
	for (unsigned i = 0; i < cpu_count; i++)
		if (get(cpus[i].steps_done) < cpus[i].steps)
			return false;
	return true;
}

/* Idles until everybody has done all steps and all that was sent has arrived; answers questions meanwhile. */
static void receive_the_rest(void)
{
	uint64_t last = progress(), since = timebase();

	while (!(everybody_is_done() && missing_messages() == 0) && !anybody_failed()) {
		cede_for_decrementer(timebase_frequency / 1000);
		if (progress() != last) {
			last = progress();
			since = timebase();
		} else if (timebase() - since > LIMIT_SECONDS * timebase_frequency) {
			fail("messages or cpus were lost; messages", missing_messages());
		}
	}
}

static void random_work(void)
{
	if (!barrier())
		return;
	for (uint64_t i = 0; i < this->steps && !anybody_failed(); i++) {
		step();
		set(this->steps_done, i + 1);
	}
	receive_the_rest();
	barrier();
	drain_prods();
}

static uint64_t checksum(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < cpu_count; i++) {
		sum = (sum ^ cpus[i].random) * 0x100000001b3;
		for (unsigned from = 0; from < cpu_count; from++) {
			sum = (sum ^ cpus[i].taken[from]) * 0x100000001b3;
			sum = (sum ^ cpus[i].answered[from]) * 0x100000001b3;
		}
	}
	return sum;
}

void case_random(void)
{
	const uint64_t steps = boot_argument("steps", 100000), seed = boot_argument("seed", 1);

	window = window_ticks();
	for (unsigned i = 0; i < cpu_count; i++) {
		struct cpu *cpu = &cpus[i];

		cpu->random = random_start(seed * MAX_CPUS + i + 1);
		cpu->steps = steps / cpu_count + (i < steps % cpu_count);
		cpu->steps_done = 0;
		for (unsigned j = 0; j < MAX_CPUS; j++)
			cpu->sent[j] = cpu->taken[j] = cpu->asked[j] = cpu->answered[j] = 0;
	}
	on_all(random_work);
	remark = (struct remark){ .word = "ok", .is_random = true, .steps = steps, .checksum = checksum() };
}
