/* PAPR's hypervisor call return codes, and a histogram of those that came. */
#include "fuzz.h"

struct range {
	int16_t first, last;
};

/* LoPAR, table "Hypervisor call return code values". */
static const struct range known[] = {
	{ -511, -256 },		/* unsupported flag, by its bit */
	{ -78, -77 }, { -75, -67 }, { -64, -64 },
	{ -62, -55 },		/* H_P9 to H_P2 */
	{ -46, -37 }, { -35, -27 }, { -25, -1 },
	{ 0, 5 }, { 14, 18 },
	{ 9900, 9905 },		/* long busy */
};

enum { MAX_RESULTS = 64 };

static struct {
	int64_t result;
	uint64_t times;
} histogram[MAX_RESULTS];
static unsigned distinct;

bool is_papr(int64_t result)
{
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (result >= known[i].first && result <= known[i].last)
			return true;
	return false;
}

void count_result(int64_t result)
{
	unsigned i = 0;

	while (i < distinct && histogram[i].result != result)
		i++;
	if (i == MAX_RESULTS)
		return;
	if (i == distinct) {
		histogram[i].result = result;
		distinct++;
	}
	histogram[i].times++;
}

void print_results(void)
{
	for (unsigned i = 0; i < distinct; i++)
		print("fuzz: result %ld: %lu\n", histogram[i].result, histogram[i].times);
}
