/* The support library of the guest payloads: hypercalls, RTAS, the device tree, the console. No C library is there. */
#ifndef PSERIES_H
#define PSERIES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PAPR's hypervisor calls that more than one file uses; the argument order is PAPR's. */
enum {
	H_PUT_TERM_CHAR = 0x58,
	H_CEDE = 0xe0,
	H_CONFER = 0xe4,
	H_PROD = 0xe8,
	H_SET_MODE = 0x31c,
	H_RTAS = 0xf000,
};

enum {
	H_SUCCESS = 0,
	H_BUSY = 1,
	H_CONTINUE = 18,
	H_FUNCTION = -2,
	H_PARAMETER = -4,
};

/* The registers at the very first instruction. */
struct entry {
	uint64_t pc, msr, r3, r4, r5;
};
extern const struct entry entry;

/* The payload itself. Its return powers the machine off. */
void main(void);

/* hcall.c: calls the hypervisor with up to nine arguments; hcall9 also gives what came back in r4 to r12. */
int64_t hcall9(uint64_t nr, const uint64_t in[9], uint64_t out[9]);
int64_t hcall4(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/* The real address of an object: the hypervisor knows no other, and an image may be linked elsewhere. */
static inline uint64_t real(const volatile void *object)
{
	return (uint64_t)object & 0x0fffffffffffffff;
}

/* Big-endian memory, as the device tree and RTAS have it, aligned or not. */
uint32_t get_be32(const volatile void *from);
uint64_t get_be64(const volatile void *from);
void put_be32(volatile void *to, uint32_t value);

/*
 * fdt.c: the flattened device tree that r3 pointed to. A path's component matches a node's name with or without its
 * unit address, and `*` matches every node.
 */
typedef void fdt_visitor(const char *name, const uint8_t *value, uint32_t length, void *context);
bool fdt_is_valid(void);
void fdt_visit(const char *path, fdt_visitor *visitor, void *context);
const uint8_t *fdt_property(const char *path, const char *name, uint32_t *length);
/* The decimal numbers behind `key=` in /chosen/bootargs, with commas between them; and the one number there. */
unsigned boot_arguments(const char *key, uint64_t *values, unsigned max);
uint64_t boot_argument(const char *key, uint64_t otherwise);
/* The word behind `key=`, which ends at a space or at the end of the line; NULL and 0 if there is none. */
const char *boot_word(const char *key, size_t *length);

/* rtas.c: the token is 0 for a call that the machine does not have. */
void rtas_init(void);
uint32_t rtas_token(const char *name);
/* Up to four arguments and two results; the status, which is the first result, is what it returns. */
int32_t rtas_call(uint32_t token, unsigned nargs, const uint32_t *args, unsigned nrets, uint32_t *rets);
void power_off(void) __attribute__((noreturn));
/* Reports the end of the operating system by ibm,os-term, then stops for good. */
void os_term(const char *message) __attribute__((noreturn));

/* console.c: the first vty. The format knows %s %c %d %u %x and %lx %lu %ld, without widths. */
void console_init(void);
uint64_t console_terminal(void);
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * vectors.c: interrupts. The handler finds the vector in r3, the interrupted r3 and CTR in SPRG0 and SPRG1. Each CPU
 * names its own, the first one with the installation. A hypercall overwrites SRR0 and SRR1.
 */
void vectors_install(const char *handler);
void vectors_handler(const char *handler);

/* random.c: a sequence is a word; the same seed gives the same one. */
uint64_t random_start(uint64_t seed);
uint64_t random_next(uint64_t *state);

/* string.c */
void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
bool same(const char *a, const char *b);
size_t length_of(const char *string);

#endif
