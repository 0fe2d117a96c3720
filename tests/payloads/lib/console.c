/* The first vty, by H_PUT_TERM_CHAR: up to sixteen bytes a call, the first in the top byte of its register. */
#include "pseries.h"

enum { CHUNK = 16, DEFAULT_TERMINAL = 0x71000000 };

static uint64_t terminal = DEFAULT_TERMINAL;
static char pending[CHUNK];
static unsigned filled;

void console_init(void)
{
	uint32_t length;
	const uint8_t *reg = fdt_property("/vdevice/vty", "reg", &length);

	if (reg && length == 4)
		terminal = get_be32(reg);
}

uint64_t console_terminal(void)
{
	return terminal;
}

static void flush(void)
{
	uint64_t words[2] = { 0, 0 };

	if (!filled)
		return;
	for (unsigned i = 0; i < filled; i++)
		words[i / 8] |= (uint64_t)(uint8_t)pending[i] << (56 - 8 * (i % 8));
	while (hcall4(H_PUT_TERM_CHAR, terminal, filled, words[0], words[1]) == H_BUSY)
		;
	filled = 0;
}

static void put(char c)
{
	pending[filled++] = c;
	if (filled == CHUNK)
		flush();
}

static void put_number(uint64_t value, unsigned base)
{
	char digits[20];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		put(digits[--n]);
}

static void put_signed(int64_t value)
{
	if (value < 0)
		put('-');
	put_number(value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
}

void print(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	for (; *format; format++) {
		bool is_long = false;

		if (*format != '%') {
			put(*format);
			continue;
		}
		if (*++format == 'l') {
			is_long = true;
			format++;
		}
		switch (*format) {
		case 's':
			for (const char *s = va_arg(args, const char *); *s; s++)
				put(*s);
			break;
		case 'c':
			put(va_arg(args, int));
			break;
		case 'd':
			put_signed(is_long ? va_arg(args, int64_t) : va_arg(args, int32_t));
			break;
		case 'u':
			put_number(is_long ? va_arg(args, uint64_t) : va_arg(args, uint32_t), 10);
			break;
		case 'x':
			put_number(is_long ? va_arg(args, uint64_t) : va_arg(args, uint32_t), 16);
			break;
		}
	}
	va_end(args);
	flush();
}
