/*
 * A big-endian image shaped like a kernel's: linked at 0xc000000000000000, to be loaded at physical 0. It shows that
 * the loader takes the entry point from where it put the image and the byte order from nothing but the MSR.
 */
#include "lib/pseries.h"

void main(void)
{
	const char *order = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? "big" : "little";

	print("be-hello: entered at 0x%lx, msr 0x%lx, r4 0x%lx, r5 0x%lx\n", entry.pc, entry.msr, entry.r4, entry.r5);
	print("be-hello: %s-endian, fdt at 0x%lx, magic %s\n", order, entry.r3, fdt_is_valid() ? "ok" : "wrong");
}
