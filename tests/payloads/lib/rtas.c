/*
 * RTAS, by the hypervisor call that the machine's RTAS blob makes, so that no payload has to leave 64-bit mode. The
 * argument block is PAPR's: token, how many arguments, how many results, arguments, results; all big-endian.
 */
#include "pseries.h"

enum { MAX_ARGS = 2 };

/* Read once: a payload may overwrite the device tree. */
static uint32_t power_off_token, os_term_token;

uint32_t rtas_token(const char *name)
{
	uint32_t length;
	const uint8_t *value = fdt_property("/rtas", name, &length);

	return value && length == 4 ? get_be32(value) : 0;
}

void rtas_init(void)
{
	power_off_token = rtas_token("power-off");
	os_term_token = rtas_token("ibm,os-term");
}

static void call_and_stop(const char *name, uint32_t token, unsigned nargs, const uint32_t *args)
	__attribute__((noreturn));
static void call_and_stop(const char *name, uint32_t token, unsigned nargs, const uint32_t *args)
{
	static uint8_t block[4 * (3 + MAX_ARGS + 1)] __attribute__((aligned(8)));
	uint8_t *status = block + 4 * (3 + nargs);

	put_be32(block, token);
	put_be32(block + 4, nargs);
	put_be32(block + 8, 1);
	for (unsigned i = 0; i < nargs; i++)
		put_be32(block + 12 + 4 * i, args[i]);
	hcall4(H_RTAS, real(block), 0, 0, 0);
	print("%s (token 0x%x) came back with %d\n", name, token, (int32_t)get_be32(status));
	for (;;)
		__asm__ volatile("" ::: "memory");
}

void power_off(void)
{
	const uint32_t no_wakeup[MAX_ARGS] = { -1, -1 };

	call_and_stop("power-off", power_off_token, 2, no_wakeup);
}

void os_term(const char *message)
{
	const uint32_t string = real(message);

	call_and_stop("ibm,os-term", os_term_token, 1, &string);
}
