/*
 * Where a payload begins: from the state a pseries machine starts its first CPU in (r3 = the device tree, real
 * mode, any byte order, perhaps 32-bit) to main() in the payload's own byte order, 64-bit, with a stack.
 *
 * Everything is reached relative to the program counter, so an image runs wherever it is put.
 */
#include "asm.h"

	.section .entry, "ax"
	.globl	_start
_start:
	TO_OWN_ENDIAN			/* leaves the MSR of the entry in r10 */
	TO_64_BIT r8, r9
	bcl	20, 31, .Lhere
.Lhere:
	mflr	r11
	addis	r2, r11, (.TOC. - .Lhere)@ha
	addi	r2, r2, (.TOC. - .Lhere)@l

	addis	r8, r2, entry@toc@ha
	addi	r8, r8, entry@toc@l
	addi	r11, r11, _start - .Lhere
	std	r11, ENTRY_PC(r8)
	std	r10, ENTRY_MSR(r8)
	std	r3, ENTRY_R3(r8)
	std	r4, ENTRY_R4(r8)
	std	r5, ENTRY_R5(r8)

	addis	r1, r2, stack_end@toc@ha
	addi	r1, r1, stack_end@toc@l
	clrrdi	r1, r1, 4
	li	r0, 0
	stdu	r0, -128(r1)
	bl	start
	nop
	b	.

/*
 * uint64_t hcall9(uint64_t nr, const uint64_t in[9], uint64_t out[9])
 *
 * The nine arguments go in r4 to r12 and come back there. `in` and `out` may be the same array.
 */
	.text
	.globl	hcall9
	.type	hcall9, @function
hcall9:
	mflr	r0
	std	r0, 16(r1)
	std	r31, -8(r1)
	stdu	r1, -64(r1)
	mr	r31, r5
	mr	r12, r4
	ld	r4, 0(r12)
	ld	r5, 8(r12)
	ld	r6, 16(r12)
	ld	r7, 24(r12)
	ld	r8, 32(r12)
	ld	r9, 40(r12)
	ld	r10, 48(r12)
	ld	r11, 56(r12)
	ld	r12, 64(r12)
	sc	1
	std	r4, 0(r31)
	std	r5, 8(r31)
	std	r6, 16(r31)
	std	r7, 24(r31)
	std	r8, 32(r31)
	std	r9, 40(r31)
	std	r10, 48(r31)
	std	r11, 56(r31)
	std	r12, 64(r31)
	addi	r1, r1, 64
	ld	r31, -8(r1)
	ld	r0, 16(r1)
	mtlr	r0
	blr
	.size	hcall9, . - hcall9

	.bss
	.balign	16
	.globl	entry
entry:
	.space	ENTRY_SIZE
	.balign	4096
	.space	32 * 1024
stack_end:

	.section .note.GNU-stack, "", @progbits
