package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose emits the transpose of 4 or 8 rows, 8 columns at a time.
func transpose(rows int) {
	name := fmt.Sprintf("gemmTranspose%dAVX2", rows)
	TEXT(name, NOSPLIT, "func(dst *float32, dstRow int, src *float32, srcRow, blocks int)")
	Doc(fmt.Sprintf("%s writes the %d rows at src, 8*blocks columns wide, as columns of dst.", name, rows))
	Pragma("noescape")
	dst := Load(Param("dst"), GP64())
	dstRow := Load(Param("dstRow"), GP64())
	src := Load(Param("src"), GP64())
	srcRow := Load(Param("srcRow"), GP64())
	blocks := Load(Param("blocks"), GP64())
	SHLQ(Imm(2), dstRow)
	SHLQ(Imm(2), srcRow)
	dst3, src3, src4 := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: dstRow, Index: dstRow, Scale: 2}, dst3)
	LEAQ(Mem{Base: srcRow, Index: srcRow, Scale: 2}, src3)
	LEAQ(Mem{Base: src, Index: srcRow, Scale: 4}, src4)

	Label("block")
	row := func(r, column int) Mem {
		base := src
		if r >= 4 {
			base, r = src4, r-4
		}
		return rowAt(base, srcRow, src3, r).Offset(4 * column)
	}
	reg := func() VecVirtual {
		if rows == 4 {
			return XMM()
		}
		return YMM()
	}
	for column := 0; column < 8; column += 4 {
		// x[r] holds 4 columns of row r and, in its high half, of row r+4, so that what remains is
		// 4x4 transposes within 128-bit halves.
		var x [4]VecVirtual
		for r := range x {
			x[r] = reg()
			VMOVUPS(row(r, column), x[r].AsX())
			if rows == 8 {
				VINSERTF128(Imm(1), row(r+4, column), x[r], x[r])
			}
		}
		transpose4x4(x, reg)
		for r := range x {
			VMOVUPS(x[r], rowAt(dst, dstRow, dst3, r))
		}
		LEAQ(Mem{Base: dst, Index: dstRow, Scale: 4}, dst)
	}
	ADDQ(Imm(32), src)
	if rows == 8 {
		ADDQ(Imm(32), src4)
	}
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// transpose4x4 transposes the elements of x within each 128-bit half. reg makes registers like x.
func transpose4x4(x [4]VecVirtual, reg func() VecVirtual) {
	lo01, hi01, lo23, hi23 := reg(), reg(), reg(), reg()
	VUNPCKLPS(x[1], x[0], lo01)
	VUNPCKHPS(x[1], x[0], hi01)
	VUNPCKLPS(x[3], x[2], lo23)
	VUNPCKHPS(x[3], x[2], hi23)
	VUNPCKLPD(lo23, lo01, x[0])
	VUNPCKHPD(lo23, lo01, x[1])
	VUNPCKLPD(hi23, hi01, x[2])
	VUNPCKHPD(hi23, hi01, x[3])
}

// copyRows emits the copy of rows that need exactly vecs vectors (rows shorter than one vector not
// included). The last vector may overlap the one before it.
func copyRows(vecs int, s isa) {
	name := fmt.Sprintf("gemmCopy%dx%dAVX2", vecs, s.lanes)
	TEXT(name, NOSPLIT, "func(dst *float32, dstRow int, src *float32, srcRow, rows, cols int)")
	Doc(fmt.Sprintf("%s copies rows of %d to %d elements.", name, max(s.lanes, s.lanes*(vecs-1)+1), s.lanes*vecs))
	Pragma("noescape")
	dst := Load(Param("dst"), GP64())
	dstRow := Load(Param("dstRow"), GP64())
	src := Load(Param("src"), GP64())
	srcRow := Load(Param("srcRow"), GP64())
	rows := Load(Param("rows"), GP64())
	cols := Load(Param("cols"), GP64())
	SHLQ(Imm(2), dstRow)
	SHLQ(Imm(2), srcRow)
	Label("row")
	for v := range vecs {
		x := s.reg()
		from, to := Mem{Base: src, Disp: s.bytes() * v}, Mem{Base: dst, Disp: s.bytes() * v}
		if v == vecs-1 {
			from = Mem{Base: src, Index: cols, Scale: 4, Disp: -s.bytes()}
			to = Mem{Base: dst, Index: cols, Scale: 4, Disp: -s.bytes()}
		}
		VMOVUPS(from, x)
		VMOVUPS(x, to)
	}
	ADDQ(srcRow, src)
	ADDQ(dstRow, dst)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}
