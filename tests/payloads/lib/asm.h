/* What the assembly files share. */

#define ENTRY_PC	0
#define ENTRY_MSR	8
#define ENTRY_R3	16
#define ENTRY_R4	24
#define ENTRY_R5	32
#define ENTRY_SIZE	40

/*
 * Goes on behind the macro in the byte order that the code was assembled for, whichever the CPU is in, with the MSR
 * from before in r10. Uses r9, r11, LR, SRR0, SRR1.
 *
 * The first word decides. In our own order it is a trap that never traps, in the other one it reads as "branch over
 * the next word", into words that are written backwards and leave with an rfid that flips MSR[LE].
 */
	.macro	TO_OWN_ENDIAN
	tdi	0, 0, 0x48
	b	.Lsame\@
	.long	0xa600407d		/* mfmsr r10 */
	.long	0x05009f42		/* bcl   20, 31, the next word */
	.long	0xa602687d		/* mflr  r11 */
	.long	0x1c006b39		/* addi  r11, r11, .Lflipped - the mflr */
	.long	0x01004969		/* xori  r9, r10, MSR_LE */
	.long	0xa6033b7d		/* mtsrr1 r9 */
	.long	0xa6037a7d		/* mtsrr0 r11 */
	.long	0x2400004c		/* rfid */
.Lsame\@:
	mfmsr	r10
.Lflipped\@:
	.endm

/* Sets MSR[SF]. */
	.macro	TO_64_BIT scratch, more
	mfmsr	\scratch
	li	\more, 1
	rldicr	\more, \more, 63, 0
	or	\scratch, \scratch, \more
	mtmsrd	\scratch
	.endm
