/* Random hypervisor calls, without those that rightly would not come back or would take the ground away. */
#include "fuzz.h"

extern const char interrupt[];

enum { LAST_KNOWN = 0x4a0 };

/* Flags of the calls on the hashed page table. */
#define H_AVPN (1ull << 31)
#define BULK_AVPN (2ull << 56)
/* No entry has this: the calls that ask for it leave the entries alone that map our own real mode on POWER8. */
#define NO_SUCH_AVPN 0xfffffffffffff000

static uint64_t entered = ~0ull;	/* the last entry that H_ENTER made */

static uint64_t random_number(void)
{
	static const uint16_t ranges[] = { 0xef00, 0xf000, 0xf060, 0xf080, 0xf800 };

	switch (random_below(16)) {
	case 0:
		return random64();
	case 1:
		return random_below(LAST_KNOWN);
	case 2:
		return ranges[random_below(sizeof(ranges) / sizeof(ranges[0]))] + random_below(0x20);
	default:
		return random_below(LAST_KNOWN / 4) * 4;
	}
}

/* Keeps calls on the hashed page table off the entries that this payload runs by. */
static void spare_page_table(struct call *call)
{
	const bool own = entered != ~0ull && random_below(2);

	switch (call->nr) {
	case H_REMOVE:
	case H_PROTECT:
		call->args[0] |= H_AVPN;
		call->args[2] = NO_SUCH_AVPN;
		if (own) {
			call->args[0] &= ~H_AVPN;
			call->args[1] = entered;
		}
		break;
	case H_BULK_REMOVE:
		for (int i = 0; i < 8; i += 2) {
			call->args[i] |= BULK_AVPN;
			call->args[i] &= ~(1ull << 56);
			call->args[i + 1] = NO_SUCH_AVPN;
		}
		break;
	}
}

/* Makes sure that a call which waits has something to wait for. */
static void before(struct call *call)
{
	switch (call->nr) {
	case H_CEDE:
		vectors_install(interrupt);
		__asm__ volatile("mtdec %0" : : "r"(1000));
		break;
	case H_CONFER:	/* to oneself it waits for a prod */
		hcall4(H_PROD, 0, 0, 0, 0);
		break;
	case H_PUT_TERM_CHAR:	/* 0 is taken for the console by some */
		if ((uint32_t)call->args[0] == console_terminal() || (uint32_t)call->args[0] == 0)
			call->args[0] = console_terminal() + 1;
		break;
	case H_SIGNAL_SYS_RESET:
		vectors_install(interrupt);
		break;
	}
	spare_page_table(call);
}

static void after(const struct call *call, const uint64_t *out)
{
	switch (call->nr) {
	case H_SET_MODE:
	case H_SET_DABR:
	case H_SET_XDABR:
		restore_mode();
		break;
	case H_ENTER:
		if (call->result == H_SUCCESS)
			entered = out[0];
		break;
	}
}

static bool is_made(uint64_t nr)
{
	switch (nr) {
	case H_RTAS:		/* random_rtas() makes it */
	case H_WATCHDOG:	/* may be set to end the guest */
		return false;
	case H_JOIN:			/* waits for a prod by another CPU, */
	case H_SIGNAL_SYS_RESET:	/* hits a CPU that is on its way to being stopped: both if there is one */
		return machine.cpus == 1;
	default:
		return !is_skipped(nr);
	}
}

void random_hcall(struct call *call)
{
	uint64_t out[9];

	do
		call->nr = random_number();
	while (!is_made(call->nr));
	for (int i = 0; i < 9; i++)
		call->args[i] = random_value();
	before(call);
	call->result = hcall9(call->nr, call->args, out);
	after(call, out);
}
