/*
 * Makes random hypervisor and RTAS calls and checks that each is answered with one of PAPR's return codes and that
 * the payload's own code and constants stay as they are.
 *
 * Boot arguments: count= (100000), seed= (1), skip= (numbers of hypervisor calls never to be made, with commas
 * between them; all decimal). What would rightly end the guest is not called: power-off, system-reboot, stop-self
 * of this CPU, ibm,os-term. A failure is reported on the console and by ibm,os-term.
 */
#include "fuzz/fuzz.h"

enum { MAX_SKIPPED = 16 };

static uint64_t skipped[MAX_SKIPPED];
static unsigned skipped_count;

bool is_skipped(uint64_t nr)
{
	for (unsigned i = 0; i < skipped_count; i++)
		if (skipped[i] == nr)
			return true;
	return false;
}

static void fail(const char *what, uint64_t i, const struct call *call) __attribute__((noreturn));
static void fail(const char *what, uint64_t i, const struct call *call)
{
	print("fuzz: FAIL %s at call %lu: hcall 0x%lx returned %ld, arguments", what, i, call->nr, call->result);
	for (int arg = 0; arg < 9; arg++)
		print(" 0x%lx", call->args[arg]);
	print("\n");
	os_term("fuzz: failed");
}

void unexpected_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1) __attribute__((noreturn));
void unexpected_interrupt(uint64_t vector, uint64_t srr0, uint64_t srr1)
{
	print("fuzz: FAIL interrupt 0x%lx at 0x%lx, srr1 0x%lx\n", vector, srr0, srr1);
	os_term("fuzz: failed");
}

void main(void)
{
	const uint64_t count = boot_argument("count", 100000);
	const uint64_t seed = boot_argument("seed", 1);
	uint64_t checksum;

	skipped_count = boot_arguments("skip", skipped, MAX_SKIPPED);
	random_seed(seed);
	machine_init();
	rtas_calls_init();
	restore_mode();
	checksum = image_checksum();
	print("fuzz: %lu calls, seed %lu, memory 0x%lx, %lu cpus\n", count, seed, machine.memory, machine.cpus);

	for (uint64_t i = 1; i <= count; i++) {
		struct call call;

		if (random_below(4))
			random_hcall(&call);
		else
			random_rtas(&call);
		count_result(call.result);
		if (!is_papr(call.result))
			fail("not a PAPR return code", i, &call);
		if (i % 10000 == 0) {
			print("fuzz: %lu of %lu\n", i, count);
			if (image_checksum() != checksum)
				fail("the image was written to", i, &call);
		}
	}
	print_results();
	print("fuzz: done %lu\n", count);
}
