/* The parts of the idle payload. */
#ifndef IDLE_H
#define IDLE_H

#include "../lib/pseries.h"

enum { MAX_CPUS = 8, STACK_SIZE = 16 << 10 };

/*
 * What a CPU tells the others, and what they tell it. Each word has one writer but where a comment says otherwise; all
 * are single words, so that nobody ever sees half a change.
 */
struct cpu {
	uint64_t stack_top;		/* the first word: vectors.S starts a CPU by it */
	uint32_t server;		/* its number for the hypervisor, as opposed to its place in `cpus` */
	uint32_t core, thread;

	/* What it is to do besides waiting: written by the first CPU, taken back by this one. */
	void (*work)(void);

	/* Interrupts taken, by kind, and external ones that had no source. */
	uint64_t decrementers, ipis, doorbells, spurious;
	uint64_t due;			/* when the decrementer runs out */
	bool tries;			/* an instruction that it may not have; how often it had it not */
	uint64_t refused;
	uint64_t naps;			/* counted up before each H_CEDE */
	uint64_t starts;		/* how often it came from start-cpu */
	uint64_t step;			/* how far it is in its work, from 0 */

	/* A wait that is under way ends here. Overdue is written by others, who have seen that it did not. */
	uint64_t deadline, overdue;

	const char *failure;		/* the first one */
	int64_t failed_with;

	/* The random case's messages, by their sender: a sum with a count in it. */
	uint64_t sent[MAX_CPUS], taken[MAX_CPUS];
	uint64_t asked[MAX_CPUS], answered[MAX_CPUS];
	uint64_t random, steps, steps_done;
} __attribute__((aligned(128)));

extern struct cpu cpus[MAX_CPUS];
extern unsigned cpu_count;
extern uint64_t timebase_frequency;

/* The CPU that runs this, which r13 points to. */
register struct cpu *this __asm__("r13");
static inline unsigned index_of(const struct cpu *cpu)
{
	return cpu - cpus;
}

/* Words between CPUs. Whoever sees one also sees what its writer wrote before. */
#define get(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define set(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* cpus.c: finds CPUs, starts them, gives them work. */
void cpus_init(uint64_t wanted);
/* Brings a stopped CPU to the loop in which it waits for work; false if it does not come. */
bool cpu_start(struct cpu *cpu);
/*
 * Lets another CPU do something; it idles before and after. The work begins when the IPI that tells of it was taken, and
 * has to leave no IPI behind.
 */
void give_work(struct cpu *cpu, void (*work)(void));
/* Waits until all work given is done. */
void finish_work(void);
/* Lets every CPU do the same, this one included. */
void on_all(void (*work)(void));
/* Whether every CPU answers; with one that does not, nothing can be shown any more that needs it. */
bool all_answer(void);
/* Remembers what went wrong on this CPU. */
void fail(const char *what, int64_t with);

/* waiting.c: nothing waits longer than the limit. */
enum { LIMIT_SECONDS = 60 };
static inline uint64_t timebase(void)
{
	uint64_t now;

	__asm__ volatile("mftb %0" : "=r"(now));
	return now;
}
void begin_wait(void);
bool may_wait(void);
void end_wait(void);
/* Rescues CPUs that sleep past the end of their wait; to be called now and then. */
void guard(void);
void spin(uint64_t ticks);
void relax(void);
/* Wait until a word has reached a value: running, or idling with the decrementer far away. */
bool spin_until(const uint64_t *word, uint64_t value);
bool cede_until(const uint64_t *word, uint64_t value);
/* Waits until all CPUs are a step further. */
bool barrier(void);

/* interrupts.c */
enum { IPI_PRIORITY = 4 };
#define DECREMENTER_FAR 0x7fffffffu
void interrupts_init(void);
void interrupts_end(void);
void set_decrementer(uint32_t ticks);
void send_ipi(const struct cpu *cpu);
void clear_own_ipi(void);

/* H_CEDE, with MSR[EE] off before and after. */
void cede(void);
/* The same until the decrementer's interrupt was taken, which comes in so many ticks; the other returns, or -1. */
int64_t cede_for_decrementer(uint32_t ticks);
/* Takes up a prod that may have been left over. */
void drain_prods(void);

/* The cases. */
void case_cede_decrementer(void);
void case_cede_overdue(void);
void case_cede_pending(void);
void case_decrementer_window(void);
uint64_t window_ticks(void);
void case_ipi(void);
void case_prod_self(void);
void case_prod_before(void);
void case_prod_after(void);
void case_prod_race(void);
void case_ring(void);
void case_confer_napping(void);
void case_confer_running(void);
void case_confer_all(void);
void case_prod_nobody(void);
void case_confer_nobody(void);
void case_stop_start(void);
void case_join(void);
void case_doorbell(void);
void case_random(void);

/* What a case says besides ok, if anything. */
struct remark {
	const char *word;		/* instead of ok */
	bool is_random;
	uint64_t steps, checksum;
};
extern struct remark remark;
/* Also called by the handler of external interrupts. */
void answer_messages(void);

enum {
	H_EOI = 0x64,
	H_CPPR = 0x68,
	H_IPI = 0x6c,
	H_XIRR = 0x74,
	H_JOIN = 0x298,
};

#endif
