/* XIVE in exploitation mode, without what Linux does for speed. The sequences are those of its arch/powerpc/sysdev/xive. */
#include "xive.h"

/* Source flag: its pages are not for the guest, H_INT_ESB is. */
enum { H_INT_ESB_ONLY = 8 };

/* Loads of a source's management page. */
enum { ESB_SET_PQ_00 = 0xc00, ESB_Q = 1 };

/* The thread's registers as the operating system has them. */
enum { TM_OS_CPPR = 0x11, TM_ACK_OS = 0x810, TM_NSR_EO = 0x80 };

enum { GENERATION_SHIFT = 31 };

static volatile uint8_t *tima;
static uint64_t first_ipi, ipis;

/* The last loads and stores, of memory or a page, come before the next ones. */
static inline void synchronize(void)
{
	__asm__ volatile("sync" : : : "memory");
}

bool xive_init(void)
{
	uint32_t length;
	const uint8_t *reg = fdt_property("/interrupt-controller", "reg", &length);

	/* Two pages, addresses and sizes of two cells: the user's and the operating system's. */
	if (!reg || length != 32)
		return false;
	tima = (volatile uint8_t *)get_be64(reg + 16);
	reg = fdt_property("/interrupt-controller", "ibm,xive-lisn-ranges", &length);
	if (!reg || length < 8)
		return false;
	first_ipi = get_be32(reg);
	ipis = get_be32(reg + 4);
	return true;
}

uint64_t xive_first_ipi(uint64_t *count)
{
	*count = ipis;
	return first_ipi;
}

int64_t xive_source_find(struct xive_source *source, uint64_t lisn)
{
	uint64_t args[9] = { 0, lisn };
	const int64_t result = hcall9(H_INT_GET_SOURCE_INFO, args, args);

	if (result != H_SUCCESS)
		return result;
	if (args[0] & H_INT_ESB_ONLY)
		return H_FUNCTION;
	*source = (struct xive_source){ lisn, (volatile uint64_t *)args[1], (volatile uint64_t *)args[2] };
	return H_SUCCESS;
}

/* Loads are 64 bits wide and big-endian; the source's state is in the last two. */
static uint64_t esb_load(const struct xive_source *source, unsigned offset)
{
	const uint64_t value = source->management[offset / sizeof(uint64_t)];

	synchronize();
	return get_be64(&value);
}

int64_t xive_source_route(const struct xive_source *source, uint32_t server, uint8_t priority, uint32_t eisn)
{
	uint64_t args[9] = { XIVE_SET_EISN, source->lisn, server, priority, eisn };
	const int64_t result = hcall9(H_INT_SET_SOURCE_CONFIG, args, args);

	if (result == H_SUCCESS)
		esb_load(source, ESB_SET_PQ_00);
	return result;
}

static int64_t set_queue(uint32_t server, uint8_t priority, uint64_t address, uint64_t shift)
{
	uint64_t args[9] = { XIVE_ALWAYS_NOTIFY, server, priority, address, shift };

	return hcall9(H_INT_SET_QUEUE_CONFIG, args, args);
}

int64_t xive_queue_give(uint32_t server, uint8_t priority, const uint32_t *page)
{
	return set_queue(server, priority, real(page), XIVE_QUEUE_SHIFT);
}

int64_t xive_queue_take_away(uint32_t server, uint8_t priority)
{
	return set_queue(server, priority, 0, 0);
}

int64_t xive_reset(void)
{
	return hcall4(H_INT_RESET, 0, 0, 0, 0);
}

void xive_queue_begin(struct xive_queue *queue, uint32_t *page)
{
	memset(page, 0, XIVE_QUEUE_SIZE);
	*queue = (struct xive_queue){ .page = page, .index = 0, .generation = 1 };
	synchronize();
}

uint32_t xive_queue_next(struct xive_queue *queue)
{
	/* Loaded whole: the controller stores it so. */
	const uint32_t loaded = __atomic_load_n(&queue->page[queue->index], __ATOMIC_ACQUIRE);
	const uint32_t entry = get_be32(&loaded);

	if (entry >> GENERATION_SHIFT != queue->generation)
		return 0;
	queue->index = (queue->index + 1) % (XIVE_QUEUE_SIZE / sizeof(uint32_t));
	queue->generation ^= queue->index == 0;
	return entry & ~(1u << GENERATION_SHIFT);
}

void xive_trigger(const struct xive_source *source)
{
	synchronize();
	*source->trigger = 0;
}

void xive_end(const struct xive_source *source)
{
	/* An event that came since the last one waits in Q, and is lost unless it is triggered again. */
	if (esb_load(source, ESB_SET_PQ_00) & ESB_Q)
		xive_trigger(source);
}

void xive_set_cppr(uint8_t priority)
{
	synchronize();
	tima[TM_OS_CPPR] = priority;
	synchronize();
}

int xive_accept(void)
{
	const uint16_t loaded = *(volatile uint16_t *)(tima + TM_ACK_OS);
	const uint8_t *byte = (const uint8_t *)&loaded;

	/* What it tells of is in its queue. */
	synchronize();
	return byte[0] & TM_NSR_EO ? byte[1] : -1;
}
