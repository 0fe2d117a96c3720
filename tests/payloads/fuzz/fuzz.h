/* The parts of the fuzz payload. */
#ifndef FUZZ_H
#define FUZZ_H

#include "../lib/pseries.h"

/* Hypervisor calls that the payload treats in a way of their own. */
enum {
	H_REMOVE = 0x04,
	H_ENTER = 0x08,
	H_PROTECT = 0x18,
	H_SET_DABR = 0x28,
	H_BULK_REMOVE = 0x124,
	H_SET_XDABR = 0x134,
	H_JOIN = 0x298,
	H_SIGNAL_SYS_RESET = 0x380,
	H_WATCHDOG = 0x45c,
};

/* random.c: the same seed gives the same calls. */
void random_seed(uint64_t seed);
uint64_t random64(void);
uint64_t random_below(uint64_t bound);

/* machine.c: what the payload has to know of the machine and of itself. */
struct machine {
	uint64_t memory;	/* bytes of RAM from address 0 */
	uint64_t arena;		/* where valid buffers are */
	uint64_t cpus;
};
extern struct machine machine;
enum { ARENA_SIZE = 2 << 20 };
void machine_init(void);
/* Whether the hypervisor may write at and shortly behind an address without hitting the payload. */
bool is_expendable(uint64_t address);
/* Gives back the interrupt byte order and the breakpoints that a call may have changed. */
void restore_mode(void);
uint64_t image_checksum(void);

/* values.c: arguments, with a taste for the edges. */
uint64_t random_value(void);

/* hcalls.c and rtas_calls.c: one random call each; the latter's result is that of the call to the hypervisor. */
struct call {
	uint64_t nr;
	uint64_t args[9];
	int64_t result;
};
void random_hcall(struct call *call);
void rtas_calls_init(void);
void random_rtas(struct call *call);
/* fuzz.c: whether `skip=` in the boot arguments has the number. */
bool is_skipped(uint64_t nr);

/* results.c: which return codes are PAPR's, and how often each came. */
bool is_papr(int64_t result);
void count_result(int64_t result);
void print_results(void);

#endif
