/*
 * What goes to each interrupt vector's address. SPRG2 holds the address of the CPU's handler, which finds the vector in
 * r3, the interrupted r3 in SPRG0 and the interrupted CTR in SPRG1.
 */
	.text
	.globl	vector_template, vector_template_end
	.balign	4
vector_template:
	mtsprg	0, r3
	mfctr	r3
	mtsprg	1, r3
	mfsprg	r3, 2
	mtctr	r3
	li	r3, 0			/* the vector is put in here */
	bctr
vector_template_end:

	.section .note.GNU-stack, "", @progbits
