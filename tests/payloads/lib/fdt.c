/* Reads the flattened device tree where the machine put it (Devicetree Specification, chapter 5). */
#include "pseries.h"

enum { MAGIC = 0xd00dfeed };
enum { BEGIN_NODE = 1, END_NODE, PROP, NOP };
enum { HEADER_STRUCT = 8, HEADER_STRINGS = 12 };

static const uint8_t *blob(void)
{
	return (const uint8_t *)entry.r3;
}

bool fdt_is_valid(void)
{
	return entry.r3 != 0 && get_be32(blob()) == MAGIC;
}

/* Whether a node's name is what a path's component, which ends at `end`, asks for. */
static bool matches(const char *node, const char *component, const char *end)
{
	if (end - component == 1 && *component == '*')
		return true;
	while (component < end && *node == *component) {
		node++;
		component++;
	}
	return component == end && (*node == '\0' || *node == '@');
}

/* The end of the component that begins at `component`. */
static const char *end_of(const char *component)
{
	while (*component != '\0' && *component != '/')
		component++;
	return component;
}

/* The component at a depth below the root, or NULL. */
static const char *component_at(const char *path, int depth)
{
	while (*path == '/')
		path++;
	for (; depth > 0 && *path != '\0'; depth--) {
		path = end_of(path);
		while (*path == '/')
			path++;
	}
	return *path == '\0' ? NULL : path;
}

static int depth_of(const char *path)
{
	int depth = 0;

	while (component_at(path, depth))
		depth++;
	return depth;
}

void fdt_visit(const char *path, fdt_visitor *visitor, void *context)
{
	const uint8_t *at, *strings;
	const int wanted = depth_of(path);
	int depth = -1, matched = -1;	/* the root's depth is 0; matched: how deep the path has been followed */

	if (!fdt_is_valid())
		return;
	at = blob() + get_be32(blob() + HEADER_STRUCT);
	strings = blob() + get_be32(blob() + HEADER_STRINGS);
	for (;;) {
		uint32_t token = get_be32(at);

		at += 4;
		if (token == BEGIN_NODE) {
			const char *name = (const char *)at;
			const char *component = depth >= 0 ? component_at(path, depth) : NULL;

			if (matched == depth && (depth == -1 || (component && matches(name, component, end_of(component)))))
				matched++;
			depth++;
			at += (length_of(name) + 1 + 3) & ~3ul;
		} else if (token == END_NODE) {
			if (matched == depth)
				matched--;
			depth--;
		} else if (token == PROP) {
			uint32_t length = get_be32(at);

			if (matched == wanted && depth == wanted)
				visitor((const char *)strings + get_be32(at + 4), at + 8, length, context);
			at += 8 + ((length + 3) & ~3u);
		} else if (token != NOP) {
			return;
		}
	}
}

struct search {
	const char *name;
	const uint8_t *value;
	uint32_t length;
};

static void take_first(const char *name, const uint8_t *value, uint32_t length, void *context)
{
	struct search *search = context;

	if (!search->value && same(name, search->name)) {
		search->value = value;
		search->length = length;
	}
}

const uint8_t *fdt_property(const char *path, const char *name, uint32_t *length)
{
	struct search search = { .name = name };

	fdt_visit(path, take_first, &search);
	*length = search.length;
	return search.value;
}

/* The text behind `key=` in the kernel command line, or NULL. */
static const char *find_argument(const char *line, uint32_t length, const char *key)
{
	const size_t key_length = length_of(key);

	for (const char *at = line; line && at + key_length < line + length; at++) {
		size_t i = 0;

		if (at != line && at[-1] != ' ')
			continue;
		while (i < key_length && at[i] == key[i])
			i++;
		if (i == key_length && at[i] == '=')
			return at + i + 1;
	}
	return NULL;
}

unsigned boot_arguments(const char *key, uint64_t *values, unsigned max)
{
	uint32_t length;
	const char *line = (const char *)fdt_property("/chosen", "bootargs", &length);
	const char *at = find_argument(line, length, key);
	unsigned count = 0;

	while (at && count < max) {
		uint64_t value = 0;

		for (; *at >= '0' && *at <= '9'; at++)
			value = value * 10 + (*at - '0');
		values[count++] = value;
		at = *at == ',' ? at + 1 : NULL;
	}
	return count;
}

uint64_t boot_argument(const char *key, uint64_t otherwise)
{
	uint64_t value;

	return boot_arguments(key, &value, 1) ? value : otherwise;
}

const char *boot_word(const char *key, size_t *length)
{
	uint32_t line_length;
	const char *line = (const char *)fdt_property("/chosen", "bootargs", &line_length);
	const char *word = find_argument(line, line_length, key);

	*length = 0;
	while (word && word[*length] != '\0' && word[*length] != ' ')
		++*length;
	return word;
}
