/*
 * RTAS, by the hypervisor call that the machine's RTAS blob makes, so that no payload has to leave 64-bit mode. The
 * argument block is PAPR's: token, how many arguments, how many results, arguments, results; all big-endian.
 */
#include "pseries.h"

enum { MAX_ARGS = 4, MAX_RETS = 2 };
/* No status of PAPR's: the machine has not answered. */
enum { UNTOUCHED = 0x7fffffff };

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

int32_t rtas_call(uint32_t token, unsigned nargs, const uint32_t *args, unsigned nrets, uint32_t *rets)
{
	uint8_t block[4 * (3 + MAX_ARGS + MAX_RETS)] __attribute__((aligned(8)));

	put_be32(block, token);
	put_be32(block + 4, nargs);
	put_be32(block + 8, nrets);
	for (unsigned i = 0; i < nargs; i++)
		put_be32(block + 12 + 4 * i, args[i]);
	for (unsigned i = 0; i < nrets; i++)
		put_be32(block + 12 + 4 * (nargs + i), UNTOUCHED);
	hcall4(H_RTAS, real(block), 0, 0, 0);
	for (unsigned i = 0; rets && i < nrets; i++)
		rets[i] = get_be32(block + 12 + 4 * (nargs + i));
	return get_be32(block + 12 + 4 * nargs);
}

static void call_and_stop(const char *name, uint32_t token, unsigned nargs, const uint32_t *args)
	__attribute__((noreturn));
static void call_and_stop(const char *name, uint32_t token, unsigned nargs, const uint32_t *args)
{
	const int32_t status = rtas_call(token, nargs, args, 1, NULL);

	print("%s (token 0x%x) came back with %d\n", name, token, status);
	for (;;)
		__asm__ volatile("" ::: "memory");
}

void power_off(void)
{
	const uint32_t no_wakeup[2] = { -1, -1 };

	call_and_stop("power-off", power_off_token, 2, no_wakeup);
}

void os_term(const char *message)
{
	const uint32_t string = real(message);

	call_and_stop("ibm,os-term", os_term_token, 1, &string);
}
