/* The two interrupts that end a nap, external (XIVE) and decrementer, and the nap itself. */
#include "phases.h"

enum { EXTERNAL = 0x500, DECREMENTER = 0x900 };
enum { MSR_EE = 0x8000 };

/* Emulated decrementers round to nanoseconds; a tick is about two. */
enum { ROUNDING = 64 };

extern int64_t h_cede(uint64_t *msr);

static void give_up(const char *what, uint64_t vector, uint64_t srr0, uint64_t srr1) __attribute__((noreturn));
static void give_up(const char *what, uint64_t vector, uint64_t srr0, uint64_t srr1)
{
	print("phases: FAIL cpu %u: %s 0x%lx at 0x%lx, srr1 0x%lx\n", (unsigned)(this - cpus), what, vector, srr0, srr1);
	os_term("phases: failed");
}

/* Ends the source of every event that the queue has. */
static uint64_t empty_queue(void)
{
	uint64_t events = 0;

	for (uint32_t number; (number = xive_queue_next(&this->queue)) != 0; events++) {
		if (number >= SOURCES) {
			fail("an event of a source that is none:", number);
			continue;
		}
		xive_end(&sources[number]);
	}
	return events;
}

static void external(uint64_t now)
{
	const int priority = xive_accept();
	uint64_t events = 0;

	if (priority >= 0 && priority != PRIORITY)
		fail("an interrupt of priority", priority);
	else if (get(this->blind))
		for (unsigned number = MAIN_SOURCE; number < SOURCES; number++)
			xive_end(&sources[number]);
	else if (priority >= 0)
		events = empty_queue();
	xive_set_cppr(XIVE_CPPR_ALL);
	if (!events) {
		this->spurious++;
		return;
	}
	this->event_at = now;
	set(this->events, this->events + events);
}

/* Gives the address at which the CPU goes on. */
uint64_t take_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1);
uint64_t take_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1)
{
	const uint64_t now = timebase();

	switch (vector) {
	case DECREMENTER:
		/* Left over from an earlier value, which emulation may deliver late: an end of the nap without a reason. */
		if (now + ROUNDING < this->due) {
			set_decrementer(this->due - now);
			break;
		}
		set_decrementer(DECREMENTER_FAR);
		this->decrementer_at = now;
		set(this->decrementers, this->decrementers + 1);
		break;
	case EXTERNAL:
		external(now);
		break;
	default:
		give_up("interrupt", vector, srr0, srr1);
	}
	return srr0;
}

void interrupts_init(void)
{
	extern const char interrupt[];

	vectors_handler(interrupt);
	set_decrementer(DECREMENTER_FAR);
	xive_set_cppr(XIVE_CPPR_ALL);
}

void set_decrementer(uint32_t ticks)
{
	this->due = timebase() + ticks;
	__asm__ volatile("mtdec %0" : : "r"((uint64_t)ticks));
}

void nap(void)
{
	uint64_t msr;
	int64_t result;

	set(this->naps, this->naps + 1);
	set(this->ceded_at, timebase());
	result = h_cede(&msr);
	if (result != H_SUCCESS)
		fail("H_CEDE returned", result);
	if (!(msr & MSR_EE))
		fail("after H_CEDE the MSR was", msr);
}
