/*
 * The interrupts of the sleeper: one queue, two sources. The sources are those that the machine has for IPIs: the sleeper's
 * own, and the first CPU's, which needs none.
 */
#include "phases.h"

struct xive_source sources[SOURCES];

/* The queue is on them in turn. */
static uint32_t pages[2][XIVE_QUEUE_SIZE / sizeof(uint32_t)] __attribute__((aligned(XIVE_QUEUE_SIZE)));
static unsigned page_index;

uint32_t *queue_page(void)
{
	return pages[page_index];
}

bool expect(const char *what, int64_t result, int64_t wanted)
{
	if (result != wanted)
		fail(what, result);
	return result == wanted;
}

bool sources_init(void)
{
	uint64_t count;
	const uint64_t first = xive_first_ipi(&count);

	if (count < 2)
		return expect("sources for IPIs:", count, 2);
	return expect("H_INT_GET_SOURCE_INFO returned", xive_source_find(&sources[MAIN_SOURCE], first + 1), H_SUCCESS) &&
		expect("H_INT_GET_SOURCE_INFO returned", xive_source_find(&sources[OTHER_SOURCE], first), H_SUCCESS);
}

static bool give_queue(void)
{
	page_index ^= 1;
	xive_queue_begin(&sleeper->queue, queue_page());
	return expect("H_INT_SET_QUEUE_CONFIG returned", xive_queue_give(sleeper->server, PRIORITY, queue_page()),
		      H_SUCCESS);
}

bool sources_route(void)
{
	if (!give_queue())
		return false;
	for (unsigned number = MAIN_SOURCE; number < SOURCES; number++)
		if (!expect("H_INT_SET_SOURCE_CONFIG returned",
			    xive_source_route(&sources[number], sleeper->server, PRIORITY, number), H_SUCCESS))
			return false;
	return true;
}

bool replace_queue(void)
{
	const int64_t result = xive_queue_take_away(sleeper->server, PRIORITY);

	return expect("H_INT_SET_QUEUE_CONFIG of no queue returned", result, H_SUCCESS) && give_queue();
}
