/* The machine's size, and the state that has to survive what the calls do to it. */
#include "fuzz.h"

extern const char image_start[], constant_end[], image_end[];

struct machine machine;

/* A buffer may begin this far below an address that must not be written. */
enum { MARGIN = 1 << 20 };

static void add_cpus(const char *name, const uint8_t *value, uint32_t length, void *context)
{
	(void)value;
	(void)context;
	if (same(name, "ibm,ppc-interrupt-server#s"))
		machine.cpus += length / 4;
}

void machine_init(void)
{
	uint32_t length;
	const uint8_t *reg = fdt_property("/memory", "reg", &length);

	if (reg && length >= 16)
		machine.memory = get_be64(reg + 8);
	fdt_visit("/cpus/*", add_cpus, NULL);
	machine.arena = (real(image_end) + MARGIN + 0xffff) & ~0xffffull;
	if (machine.arena + ARENA_SIZE > machine.memory) {
		print("fuzz: FAIL memory of 0x%lx bytes is too small\n", machine.memory);
		os_term("fuzz: failed");
	}
}

bool is_expendable(uint64_t address)
{
	const uint64_t first = real(image_start) - MARGIN, end = real(image_end);

	/* RTAS takes 32 bits of an address and real mode ignores the top four: neither may lead to the image. */
	address &= 0x0fffffffffffffff;
	return !(address >= first && address < end) && !((uint32_t)address >= first && (uint32_t)address < end);
}

void restore_mode(void)
{
	enum { CIABR = 1, DAWR0 = 2, ENDIAN = 4, DAWR1 = 5, LITTLE = 1 };
	const int64_t result = hcall4(H_SET_MODE, LITTLE, ENDIAN, 0, 0);

	if (result != H_SUCCESS) {
		print("fuzz: FAIL H_SET_MODE for little-endian interrupts returned %ld\n", result);
		os_term("fuzz: failed");
	}
	hcall4(H_SET_MODE, 0, CIABR, 0, 0);
	hcall4(H_SET_MODE, 0, DAWR0, 0, 0);
	hcall4(H_SET_MODE, 0, DAWR1, 0, 0);
	hcall4(H_SET_DABR, 0, 0, 0, 0);
	hcall4(H_SET_XDABR, 0, 0, 0, 0);
}

uint64_t image_checksum(void)
{
	uint64_t sum = 0;

	for (const char *at = image_start; at < constant_end; at++)
		sum = sum * 31 + (uint8_t)*at;
	return sum;
}
