/* Reports its own end as Linux does when it panics. */
#include "lib/pseries.h"

void main(void)
{
	print("panic: calling ibm,os-term\n");
	os_term("OS panic: the panic payload was asked to");
}
