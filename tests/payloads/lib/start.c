/* From entry.S to main(): whatever has to be done once before a payload may use its data and the machine. */

#include "pseries.h"

/* An entry of .rela.dyn. The one type that a position-independent payload has says "add the load address". */
struct rela {
	uint64_t offset;
	uint64_t info;
	uint64_t addend;
};
#define R_PPC64_RELATIVE 22

extern char image_start[] __attribute__((visibility("hidden")));
extern const struct rela rela_start[], rela_end[] __attribute__((visibility("hidden")));

/* Adds where an ET_DYN image was put to each of its pointers. Others have none to relocate. */
static void relocate(void)
{
	for (const struct rela *rela = rela_start; rela < rela_end; rela++)
		if ((uint32_t)rela->info == R_PPC64_RELATIVE)
			*(uint64_t *)(image_start + rela->offset) = (uint64_t)image_start + rela->addend;
}

void start(void)
{
	relocate();
	console_init();
	rtas_init();
	main();
	power_off();
}
