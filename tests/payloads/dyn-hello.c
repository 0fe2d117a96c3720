/*
 * A position-independent image (ET_DYN, linked at 0). It says where it was put, and whether a pointer that only
 * a relocation could have made right is.
 */
#include "lib/pseries.h"

extern const char image_start[];
static const char text[] = "relocated";
static const char *const volatile pointer = text;

void main(void)
{
	print("dyn-hello: loaded at 0x%lx, entered at 0x%lx, msr 0x%lx\n", real(image_start), entry.pc, entry.msr);
	print("dyn-hello: %s, fdt magic %s\n", pointer, fdt_is_valid() ? "ok" : "wrong");
}
