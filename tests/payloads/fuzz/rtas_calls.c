/*
 * Random RTAS calls: tokens that the device tree has and others, argument blocks in memory and outside, aligned or
 * not, with counts that lie. Whatever block lies in memory begins with a header of ours, so that no block says
 * power-off by chance.
 */
#include "fuzz.h"

enum { MAX_TOKENS = 64, HEADER = 12, MAX_WORDS = 24 };

extern uint8_t park_rtas_args[];
extern const char park[];

static uint32_t tokens[MAX_TOKENS], excluded[MAX_TOKENS];
static unsigned token_count, excluded_count;
static uint32_t start_cpu;

static bool ends_the_guest(const char *name)
{
	return same(name, "power-off") || same(name, "system-reboot") || same(name, "stop-self") ||
	       same(name, "ibm,os-term") || same(name, "ibm,power-off-ups") || same(name, "ibm,suspend-me");
}

/* The console is for what this payload has to say. */
static bool writes_to_the_console(const char *name)
{
	return same(name, "display-character") || same(name, "put-term-char");
}

static bool begins_with(const char *name, const char *prefix)
{
	while (*prefix && *name == *prefix) {
		name++;
		prefix++;
	}
	return *prefix == '\0';
}

static bool is_call(const char *name)
{
	return !begins_with(name, "linux,") && !begins_with(name, "rtas-") && !begins_with(name, "qemu,") &&
	       !same(name, "phandle") && !same(name, "name");
}

static void take_token(const char *name, const uint8_t *value, uint32_t length, void *context)
{
	(void)context;
	if (length != 4 || !is_call(name))
		return;
	if (ends_the_guest(name) || writes_to_the_console(name)) {
		if (excluded_count < MAX_TOKENS)
			excluded[excluded_count++] = get_be32(value);
	} else if (token_count < MAX_TOKENS) {
		tokens[token_count++] = get_be32(value);
	}
}

void rtas_calls_init(void)
{
	fdt_visit("/rtas", take_token, NULL);
	start_cpu = rtas_token("start-cpu");
	put_be32(park_rtas_args, rtas_token("stop-self"));
	put_be32(park_rtas_args + 4, 0);
	put_be32(park_rtas_args + 8, 1);
}

static bool is_excluded(uint32_t token)
{
	for (unsigned i = 0; i < excluded_count; i++)
		if (excluded[i] == token)
			return true;
	return false;
}

static uint32_t random_token(void)
{
	uint32_t token;

	do
		token = random_below(8) && token_count ? tokens[random_below(token_count)] : random_value();
	while (is_excluded(token));
	return token;
}

static uint32_t random_count(void)
{
	return random_below(8) ? random_below(12) : random_value();
}

/* Writes as many of a block's words as fit in memory. */
static void write_block(uint64_t block, const uint32_t *words)
{
	for (unsigned i = 0; i < HEADER / 4 + MAX_WORDS; i++) {
		for (unsigned byte = 0; byte < 4; byte++) {
			const uint64_t at = block + 4 * i + byte;

			if (at < machine.memory)
				*(volatile uint8_t *)at = words[i] >> (24 - 8 * byte);
		}
	}
}

void random_rtas(struct call *call)
{
	const uint64_t block = random_below(4) ? (machine.arena + random_below(ARENA_SIZE / 2)) & ~3ull : random_value();
	uint32_t words[HEADER / 4 + MAX_WORDS];
	uint64_t out[9];

	words[0] = random_token();
	words[1] = random_count();
	words[2] = random_count();
	for (unsigned i = HEADER / 4; i < HEADER / 4 + MAX_WORDS; i++)
		words[i] = random_value();
	if (words[0] == start_cpu)
		words[HEADER / 4 + 1] = real(park);
	/* The hypervisor may take 32 bits or real mode's part of the address: put the same block at each. */
	write_block(block & 0x0fffffffffffffff, words);
	write_block((uint32_t)block, words);

	call->nr = H_RTAS;
	call->args[0] = block;
	for (int i = 1; i < 9; i++)
		call->args[i] = random_value();
	call->result = hcall9(H_RTAS, call->args, out);
}
