package kernel

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

// CopyOf is a register that starts as r.
func CopyOf(r Register) Register {
	c := GP64()
	MOVQ(r, c)
	return c
}
