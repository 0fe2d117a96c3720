/* What goes to the decrementer's vector: sets the decrementer far into the future and returns with MSR[EE] off. */
	.text
	.globl	decrementer_vector, decrementer_vector_end
	.balign	4
decrementer_vector:
	mtsprg	0, r3
	lis	r3, 0x7fff
	mtdec	r3
	mfsrr1	r3
	rldicl	r3, r3, 48, 1		/* MSR[EE] to the top and out, and back */
	rotldi	r3, r3, 16
	mtsrr1	r3
	mfsprg	r3, 0
	rfid
decrementer_vector_end:

	.section .note.GNU-stack, "", @progbits
