/* The handler of all interrupts: only the decrementer's is expected, while H_CEDE waits. */
	.text
	.globl	take_decrementer
take_decrementer:
	lis	r3, 0x7fff
	mtdec	r3
	mfsrr1	r3
	rldicl	r3, r3, 48, 1		/* MSR[EE] to the top and out, and back */
	rotldi	r3, r3, 16
	mtsrr1	r3
	mfsprg	r3, 1
	mtctr	r3
	mfsprg	r3, 0
	rfid

	.section .note.GNU-stack, "", @progbits
