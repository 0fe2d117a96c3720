/* The parts of the phases payload. */
#ifndef PHASES_H
#define PHASES_H

#include "../lib/xive.h"

enum { MAX_CPUS = 8, STACK_SIZE = 16 << 10 };

/* All interrupts have Linux's priority: KVM wakes a CPU for one queue only (README.md). */
enum { PRIORITY = 6 };

/*
 * What a CPU tells the others, and what they tell it. Single words, each with one writer but where a comment says otherwise.
 */
struct cpu {
	uint64_t stack_top;		/* the first word: handlers.h starts a CPU by it */
	uint32_t server, core;		/* its number for the hypervisor; its core's place in the tree */

	/* Its job: written by the first CPU, taken back by this one. */
	void (*job)(void);
	uint64_t starts;

	/* The first CPU puts a new one here while no event is under way. */
	struct xive_queue queue;
	/* The queue holds nonsense: the sources are ended without looking there. Written by the first CPU. */
	bool blind;

	/* Events taken, and when the last one's interrupt came; likewise the decrementer's. */
	uint64_t events, event_at;
	uint64_t decrementers, decrementer_at;
	uint64_t due;			/* when the decrementer runs out */
	uint64_t spurious;		/* interrupts without an event */

	/* The round whose H_CEDE comes next, and when that was said; when H_CEDE was called last; the round that is over. */
	uint64_t announced, announced_at, ceded_at, done;
	uint64_t naps;

	const char *failure;		/* the first one */
	int64_t failed_with;
} __attribute__((aligned(128)));

extern struct cpu cpus[MAX_CPUS];
extern unsigned cpu_count;
extern uint64_t timebase_frequency;

/* The CPU that runs this, which r13 points to. */
register struct cpu *this __asm__("r13");

/* The first CPU tells the sleeper what to do; the sibling, if there is one, is on the sleeper's core. */
extern struct cpu *sleeper, *sibling;

/* Words between CPUs. Whoever sees one also sees what its writer wrote before. */
#define get(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define set(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

static inline uint64_t timebase(void)
{
	uint64_t now;

	__asm__ volatile("mftb %0" : "=r"(now));
	return now;
}

static inline uint64_t microseconds(uint64_t us)
{
	return us * (timebase_frequency / 1000000);
}

/* cpus.c: finds CPUs, starts them, gives them jobs. */
void cpus_init(void);
bool cpu_start(struct cpu *cpu);
void give_job(struct cpu *cpu, void (*job)(void));
/* Tells all jobs to end and waits until they have. */
void end_jobs(void);
/* Whether jobs are to end. */
bool ending(void);
void spin(uint64_t ticks);
/* Waits until a word has reached a value; false when that takes too long, or jobs are to end. */
bool wait_for(const uint64_t *word, uint64_t value);
/* Remembers what went wrong on this CPU. */
void fail(const char *what, int64_t with);

/* interrupts.c */
#define DECREMENTER_FAR 0x7fffffffu
void interrupts_init(void);
void set_decrementer(uint32_t ticks);
/* One H_CEDE, with MSR[EE] off before and after. */
void nap(void);

/* sources.c: the two sources that are routed to the sleeper, and its queue. */
enum { MAIN_SOURCE = 1, OTHER_SOURCE, SOURCES };
extern struct xive_source sources[SOURCES];
/* Finds the sources; false where there are none. */
bool sources_init(void);
/* Gives the sleeper a fresh queue, on another page than the last one, and routes the sources to it. */
bool sources_route(void);
/* Takes its queue away and gives it a fresh one. */
bool replace_queue(void);
uint32_t *queue_page(void);
/* Whether a hypervisor call returned what it has to. */
bool expect(const char *what, int64_t result, int64_t wanted);

/* sweep.c: latencies by phase, and what is said of them. */
struct sweep_options {
	uint64_t width, late, nap;	/* ticks */
	uint64_t steps, passes;
	/* How many events may be lost: in a case, and in one that moves the queue of a CPU that naps. */
	uint64_t lost[2];
	bool histogram;
};
extern struct sweep_options options;
void sweep_begin(uint64_t may_lose);
/* The delay of a round. Steps are even over the width; each pass lies between the steps of the ones before. */
uint64_t sweep_rounds(void);
uint64_t sweep_delay(uint64_t round);
/*
 * An event that came `phase` ticks after the announcement, and how long it took to be taken, at most and at least; whether H_CEDE had
 * been called.
 */
void sweep_note(uint64_t phase, uint64_t latency, int64_t overdue, bool ceded);
/* An event that did not end its nap: the decrementer did. */
void sweep_lose(void);
void sweep_print(const char *name);
void sweep_print_histogram(const char *name);

/* rounds.c: one event into one nap, again and again. */
struct rounds {
	uint64_t count;
	const struct xive_source *source;
	/*
	 * What the first CPU does before a nap, and in it before the event. NULL for nothing; false ends the rounds.
	 */
	bool (*between)(uint64_t round);
	bool (*before)(uint64_t round);
};
void rounds_run(const struct rounds *rounds);

/* The cases. */
void case_ipi(void);
void case_device_like(void);
void case_decrementer(void);
void case_requeue(void);
void case_reset(void);
void case_lies(void);
void case_scribble(void);
void case_two_threads(void);

#endif
