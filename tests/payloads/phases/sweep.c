/* Latencies by phase: how long after the announcement of a nap an event came, and how long it took to be taken. */
#include "phases.h"

enum { MAX_SAMPLES = 20000, BUCKETS = 20, MAX_LATE = 10 };

struct sweep_options options;

static struct sample {
	uint32_t phase, latency;
} samples[MAX_SAMPLES];
static uint64_t count, ceded_count, late_count, lost_count, lost_limit;
static uint32_t sorted[MAX_SAMPLES];

void sweep_begin(uint64_t may_lose)
{
	lost_limit = may_lose;
	count = ceded_count = late_count = lost_count = 0;
}

uint64_t sweep_rounds(void)
{
	return options.steps * options.passes;
}

uint64_t sweep_delay(uint64_t round)
{
	const uint64_t step = round % options.steps, pass = round / options.steps % options.passes;

	return options.width * (step * options.passes + pass) / (options.steps * options.passes);
}

static uint32_t narrow(uint64_t ticks)
{
	return ticks > UINT32_MAX ? UINT32_MAX : ticks;
}

void sweep_note(uint64_t phase, uint64_t latency, int64_t overdue, bool ceded)
{
	if (overdue > (int64_t)options.late) {
		late_count++;
		if (late_count <= MAX_LATE)
			print("phases: late: event %lu by %lu us, at phase %lu us\n", count, overdue / microseconds(1),
			      phase / microseconds(1));
		fail("an event was late; us", overdue / microseconds(1));
	}
	ceded_count += ceded;
	if (count < MAX_SAMPLES)
		samples[count++] = (struct sample){ narrow(phase), narrow(latency) };
}

void sweep_lose(void)
{
	if (++lost_count > lost_limit)
		fail("events that the decrementer had to help:", lost_count);
}

static void print_us(const char *before, uint64_t ticks)
{
	const uint64_t tenths = ticks * 10 / microseconds(1);

	print("%s%lu.%lu us", before, tenths / 10, tenths % 10);
}

static void sort(uint32_t *values, uint64_t length)
{
	for (uint64_t gap = length / 2; gap > 0; gap /= 2)
		for (uint64_t i = gap; i < length; i++) {
			const uint32_t value = values[i];
			uint64_t at = i;

			for (; at >= gap && values[at - gap] > value; at -= gap)
				values[at] = values[at - gap];
			values[at] = value;
		}
}

/* Sorts the latencies of phases from one up to another; how many there are. */
static uint64_t sort_phases(uint64_t from, uint64_t to)
{
	uint64_t length = 0;

	for (uint64_t i = 0; i < count; i++)
		if (samples[i].phase >= from && samples[i].phase < to)
			sorted[length++] = samples[i].latency;
	sort(sorted, length);
	return length;
}

static void print_summary(uint64_t length)
{
	print("%lu events", length);
	if (!length)
		return;
	print_us(", median ", sorted[length / 2]);
	print_us(", max ", sorted[length - 1]);
}

void sweep_print(const char *name)
{
	if (!count)
		return;
	print("phases: %s: ", name);
	print_summary(sort_phases(0, UINT64_MAX));
	print(", %lu of them after H_CEDE was called", ceded_count);
	if (lost_count)
		print("; %lu more that the decrementer had to help", lost_count);
	print("\n");
}

void sweep_print_histogram(const char *name)
{
	for (uint64_t bucket = 0; count && bucket <= BUCKETS; bucket++) {
		const uint64_t from = options.width * bucket / BUCKETS, to = options.width * (bucket + 1) / BUCKETS;

		const uint64_t length = sort_phases(from, bucket == BUCKETS ? UINT64_MAX : to);

		if (!length)
			continue;
		print("phases: %s: phase", name);
		print_us(" from ", from);
		print(": ");
		print_summary(length);
		print("\n");
	}
}
