#include "textflag.h"

// func clone(nr, a1, a2 uintptr, c *Child) (pid uintptr)
TEXT ·clone(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	nr+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	c+24(FP), R10
	SVC
	CBZ	R0, child
	MOVD	R0, pid+32(FP)
	RET
child: // on its own stack
	SUB	$32, RSP
	MOVD	R10, 8(RSP)
	BL	·play(SB)
	BRK
