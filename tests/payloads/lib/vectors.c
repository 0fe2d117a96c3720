/* Interrupt vectors at the architecture's addresses, for all CPUs; each CPU names its handler. */
#include "pseries.h"

extern const uint32_t vector_template[], vector_template_end[];

enum { FIRST_VECTOR = 0x100, LAST_VECTOR = 0x1800, VECTOR_STEP = 0x20 };

static void synchronize_instructions(uint64_t first, uint64_t end)
{
	for (uint64_t line = first; line < end; line += 32)
		__asm__ volatile("dcbst 0,%0\n\tsync\n\ticbi 0,%0" : : "r"(line) : "memory");
	__asm__ volatile("isync" : : : "memory");
}

void vectors_install(const char *handler)
{
	const unsigned words = vector_template_end - vector_template;

	for (uint64_t vector = FIRST_VECTOR; vector <= LAST_VECTOR; vector += VECTOR_STEP) {
		volatile uint32_t *to = (volatile uint32_t *)vector;

		for (unsigned i = 0; i < words; i++)
			to[i] = vector_template[i];
		to[words - 2] |= vector;	/* the li's operand */
	}
	synchronize_instructions(FIRST_VECTOR, LAST_VECTOR + VECTOR_STEP);
	vectors_handler(handler);
}

void vectors_handler(const char *handler)
{
	__asm__ volatile("mtsprg 2,%0" : : "r"(handler));
}
