/*
 * The interrupt handler, and where start-cpu sends other CPUs.
 *
 * Only the CPU that runs main() takes interrupts: MSR[EE] is off but for the moment in which H_CEDE turns it on.
 */
#include "../lib/asm.h"

	.text
/* r3 = the vector. Expected ones return with MSR[EE] off; anything else ends the payload. */
	.globl	interrupt
interrupt:
	std	r4, -512(r1)		/* below the part that the ABI lets a function use */
	mfcr	r4
	std	r4, -504(r1)
	cmpwi	r3, 0x900
	beq	.Ldecrementer
	cmpwi	r3, 0x500
	beq	.Lreturn
	cmpwi	r3, 0xa00
	beq	.Lreturn
	cmpwi	r3, 0x100
	beq	.Lreturn
	mfsrr0	r4
	mfsrr1	r5
	addis	r1, r2, exception_stack_end@toc@ha
	addi	r1, r1, exception_stack_end@toc@l
	addi	r1, r1, -128
	b	unexpected_interrupt
.Ldecrementer:
	lis	r4, 0x7fff
	mtdec	r4
.Lreturn:
	mfsrr1	r4
	rldicl	r4, r4, 48, 1		/* MSR[EE] to the top and out, and back */
	rotldi	r4, r4, 16
	mtsrr1	r4
	ld	r4, -504(r1)
	mtcr	r4
	ld	r4, -512(r1)
	mfsprg	r3, 1
	mtctr	r3
	mfsprg	r3, 0
	rfid

/* The other CPUs: straight back to the stopped state, by the RTAS arguments in park_rtas_args. */
	.globl	park
park:
	TO_OWN_ENDIAN
	TO_64_BIT r8, r9
	bcl	20, 31, .Lparked
.Lparked:
	mflr	r11
	addis	r4, r11, (park_rtas_args - .Lparked)@ha
	addi	r4, r4, (park_rtas_args - .Lparked)@l
	li	r3, 0
	ori	r3, r3, 0xf000		/* H_RTAS */
	sc	1
	b	.

	.bss
	.globl	park_rtas_args
	.balign	16
park_rtas_args:
	.space	32
	.balign	16
	.space	8192
exception_stack_end:

	.section .note.GNU-stack, "", @progbits
