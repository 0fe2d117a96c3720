/* Never ends and takes no interrupt: for time limits, and for SIGTERM when a guest does not answer. */
#include "lib/pseries.h"

void main(void)
{
	print("hang: looping\n");
	for (;;)
		__asm__ volatile("" ::: "memory");
}
