/*
 * XIVE in exploitation mode (PAPR 14.5.4.9): where each interrupt goes is told by hypervisor calls; triggering, ending and
 * accepting it are loads and stores of the controller's pages. These are made in real mode, which reaches
 * them in a radix guest alone.
 */
#ifndef XIVE_H
#define XIVE_H

#include "pseries.h"

enum {
	H_INT_GET_SOURCE_INFO = 0x3a8,
	H_INT_SET_SOURCE_CONFIG = 0x3ac,
	H_INT_SET_QUEUE_CONFIG = 0x3b8,
	H_INT_RESET = 0x3d0,
};

enum { H_P2 = -55, H_P3 = -56, H_P4 = -57, H_P5 = -58 };

/* The one size of a queue that KVM has. */
enum { XIVE_QUEUE_SHIFT = 16, XIVE_QUEUE_SIZE = 1 << XIVE_QUEUE_SHIFT };

enum { XIVE_SET_EISN = 2, XIVE_ALWAYS_NOTIFY = 1 };
enum { XIVE_CPPR_ALL = 0xff };

/* An event queue, as the CPU that empties it follows it. Entries are big-endian, the generation is their top bit. */
struct xive_queue {
	const uint32_t *page;
	uint32_t index;
	uint32_t generation;		/* of the events to come */
};

struct xive_source {
	uint64_t lisn;
	volatile uint64_t *management, *trigger;
};

/* Finds the controller in the device tree; false without one. */
bool xive_init(void);
/* The first source for IPIs, and how many there are. */
uint64_t xive_first_ipi(uint64_t *count);

/* These give what the hypervisor returned. A source is masked until it is routed. */
int64_t xive_source_find(struct xive_source *source, uint64_t lisn);
int64_t xive_source_route(const struct xive_source *source, uint32_t server, uint8_t priority, uint32_t eisn);
int64_t xive_queue_give(uint32_t server, uint8_t priority, const uint32_t *page);
int64_t xive_queue_take_away(uint32_t server, uint8_t priority);
int64_t xive_reset(void);

/* Zeroes the page, from which a queue begins; before it is given. */
void xive_queue_begin(struct xive_queue *queue, uint32_t *page);
/* The next event's source, as its route says; 0 if there is none. */
uint32_t xive_queue_next(struct xive_queue *queue);

void xive_trigger(const struct xive_source *source);
void xive_end(const struct xive_source *source);

/* What the CPU accepts: interrupts of a number below. */
void xive_set_cppr(uint8_t priority);
/* Accepts an interrupt: its priority, which is what the CPU accepts then, or -1 if there was none. */
int xive_accept(void);

#endif
