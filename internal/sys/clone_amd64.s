#include "textflag.h"

// func clone(nr, a1, a2 uintptr, c *Child) (pid uintptr)
TEXT ·clone(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	nr+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	$0, DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	c+24(FP), R12
	SYSCALL
	CMPQ	AX, $0
	JEQ	child
	MOVQ	AX, pid+32(FP)
	RET
child: // on its own stack
	SUBQ	$16, SP
	MOVQ	R12, 0(SP)
	CALL	·play(SB)
	INT	$3
