/* The three interrupts that end a nap: decrementer, external (XICS), doorbell; and the nap itself. */
#include "idle.h"

enum { PROGRAM = 0x700, EXTERNAL = 0x500, DECREMENTER = 0x900, DOORBELL = 0xa00 };
enum { IPI_SOURCE = 2, CPPR_ALL = 0xff, MFRR_NONE = 0xff };
enum { MSR_EE = 0x8000 };

/* Emulated decrementers round to nanoseconds; a tick is about two. */
enum { ROUNDING = 64 };

/* An external interrupt without a source is allowed, a line that stays up without one is not. */
enum { MAX_SPURIOUS = 1000 };

extern const char interrupt[];
extern int64_t h_cede(uint64_t *msr);

static void give_up(const char *what, uint64_t vector, uint64_t srr0, uint64_t srr1) __attribute__((noreturn));
static void give_up(const char *what, uint64_t vector, uint64_t srr0, uint64_t srr1)
{
	print("idle: FAIL cpu %u: %s 0x%lx at 0x%lx, srr1 0x%lx\n", index_of(this), what, vector, srr0, srr1);
	os_term("idle: failed");
}

/* Accepts one external interrupt. The MFRR is taken back before the messages are read, so none is overlooked. */
static void external(uint64_t srr0, uint64_t srr1)
{
	uint64_t args[9] = { 0 };
	uint32_t xirr;

	hcall9(H_XIRR, args, args);
	xirr = args[0];
	if ((xirr & 0xffffff) == 0) {
		if (++this->spurious > MAX_SPURIOUS)
			give_up("no source again and again for interrupt", EXTERNAL, srr0, srr1);
		return;
	}
	if ((xirr & 0xffffff) != IPI_SOURCE)
		give_up("external interrupt", xirr & 0xffffff, srr0, srr1);
	this->spurious = 0;
	clear_own_ipi();
	set(this->ipis, this->ipis + 1);
	answer_messages();
	hcall4(H_EOI, xirr, 0, 0, 0);
}

/* Gives the address at which the CPU goes on. */
uint64_t take_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1);
uint64_t take_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1)
{
	uint64_t now;

	switch (vector) {
	case DECREMENTER:
		now = timebase();
		/* Left over from an earlier value, which emulation may deliver late: an end of the nap without a reason. */
		if (now + ROUNDING < this->due) {
			set_decrementer(this->due - now);
			break;
		}
		set_decrementer(DECREMENTER_FAR);
		set(this->decrementers, this->decrementers + 1);
		break;
	case EXTERNAL:
		external(srr0, srr1);
		break;
	case DOORBELL:
		set(this->doorbells, this->doorbells + 1);
		break;
	case PROGRAM:
		if (this->tries) {
			this->refused++;
			return srr0 + 4;
		}
		/* fall through */
	default:
		give_up("interrupt", vector, srr0, srr1);
	}
	return srr0;
}

void interrupts_init(void)
{
	vectors_handler(interrupt);
	set_decrementer(DECREMENTER_FAR);
	hcall4(H_CPPR, CPPR_ALL, 0, 0, 0);
}

void interrupts_end(void)
{
	set_decrementer(DECREMENTER_FAR);
	hcall4(H_CPPR, 0, 0, 0, 0);
	clear_own_ipi();
}

void set_decrementer(uint32_t ticks)
{
	this->due = timebase() + ticks;
	__asm__ volatile("mtdec %0" : : "r"((uint64_t)ticks));
}

void send_ipi(const struct cpu *cpu)
{
	int64_t result;

	/* What it tells of is to be seen by whoever takes it. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	result = hcall4(H_IPI, cpu->server, IPI_PRIORITY, 0, 0);
	if (result != H_SUCCESS)
		fail("H_IPI returned", result);
}

void clear_own_ipi(void)
{
	hcall4(H_IPI, this->server, MFRR_NONE, 0, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void cede(void)
{
	uint64_t msr;
	int64_t result;

	__asm__ volatile("mfmsr %0" : "=r"(msr));
	if (msr & MSR_EE)
		fail("before H_CEDE the MSR was", msr);
	set(this->naps, this->naps + 1);
	result = h_cede(&msr);
	if (result != H_SUCCESS)
		fail("H_CEDE returned", result);
	if (!(msr & MSR_EE))
		fail("after H_CEDE the MSR was", msr);
	guard();
}

int64_t cede_for_decrementer(uint32_t ticks)
{
	const uint64_t before = this->decrementers;
	int64_t in_vain = -1;

	begin_wait();
	set_decrementer(ticks);
	do {
		cede();
		in_vain++;
	} while (get(this->decrementers) == before && may_wait());
	end_wait();
	if (get(this->decrementers) != before)
		return in_vain;
	fail("no decrementer interrupt; returns", in_vain + 1);
	return -1;
}

void drain_prods(void)
{
	cede_for_decrementer(0);
	cede_for_decrementer(timebase_frequency / 10000);
}
