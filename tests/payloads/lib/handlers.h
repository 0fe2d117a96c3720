/*
 * Interrupts, H_CEDE, and where start-cpu sends other CPUs: what a payload with handlers in C puts into its vectors.S. It
 * brings `take_interrupt` and `secondary`.
 *
 * r13 points to the CPU's struct everywhere. MSR[EE] is on only between an H_CEDE and the instructions behind it, so an
 * interrupt is always taken there, on the CPU's one stack.
 */
#include "asm.h"

#define FRAME		288		/* the ABI's 32, then what a C function may change */
#define RED_ZONE	512

	.text
/*
 * r3 = the vector. Everything that C may change is kept, SRR1 too, which hypercalls overwrite; where to go on C says.
 */
	.globl	interrupt
interrupt:
	stdu	r1, -(FRAME + RED_ZONE)(r1)
	std	r0, 32(r1)
	std	r4, 40(r1)
	std	r5, 48(r1)
	std	r6, 56(r1)
	std	r7, 64(r1)
	std	r8, 72(r1)
	std	r9, 80(r1)
	std	r10, 88(r1)
	std	r11, 96(r1)
	std	r12, 104(r1)
	mflr	r0
	std	r0, 112(r1)
	mfcr	r0
	std	r0, 120(r1)
	mfxer	r0
	std	r0, 128(r1)
	mfsprg	r0, 0
	std	r0, 136(r1)
	mfsprg	r0, 1
	std	r0, 144(r1)
	mfsrr0	r4
	mfsrr1	r5
	std	r5, 152(r1)
	bl	take_interrupt
	nop
	mtsrr0	r3
	ld	r0, 152(r1)
	mtsrr1	r0
	ld	r0, 144(r1)
	mtctr	r0
	ld	r0, 128(r1)
	mtxer	r0
	ld	r0, 120(r1)
	mtcr	r0
	ld	r0, 112(r1)
	mtlr	r0
	ld	r3, 136(r1)
	ld	r4, 40(r1)
	ld	r5, 48(r1)
	ld	r6, 56(r1)
	ld	r7, 64(r1)
	ld	r8, 72(r1)
	ld	r9, 80(r1)
	ld	r10, 88(r1)
	ld	r11, 96(r1)
	ld	r12, 104(r1)
	ld	r0, 32(r1)
	addi	r1, r1, FRAME + RED_ZONE
	rfid

/*
 * int64_t h_cede(uint64_t *msr)
 *
 * Gives r3 and the MSR as they are right behind the call, once pending interrupts were taken; leaves MSR[EE] off.
 */
	.globl	h_cede
	.type	h_cede, @function
h_cede:
	mflr	r0
	std	r0, 16(r1)
	std	r31, -8(r1)
	stdu	r1, -64(r1)
	mr	r31, r3
	li	r3, 0xe0
	sc	1
	mfmsr	r5
	li	r6, 0
	mtmsrd	r6, 1			/* EE and RI alone */
	std	r5, 0(r31)
	addi	r1, r1, 64
	ld	r31, -8(r1)
	ld	r0, 16(r1)
	mtlr	r0
	blr
	.size	h_cede, . - h_cede

/* r3 = the CPU's struct, whose first word is its stack. */
	.globl	secondary_entry
secondary_entry:
	TO_OWN_ENDIAN
	TO_64_BIT r8, r9
	bcl	20, 31, .Lhere
.Lhere:
	mflr	r11
	addis	r2, r11, (.TOC. - .Lhere)@ha
	addi	r2, r2, (.TOC. - .Lhere)@l
	mr	r13, r3
	ld	r1, 0(r3)
	li	r0, 0
	stdu	r0, -128(r1)
	bl	secondary
	nop
	b	.

	.section .note.GNU-stack, "", @progbits
