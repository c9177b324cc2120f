package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dot emits the products of `rows` rows of A with `cols` rows of B, all of k elements. The vectors
// run along K, so that neither operand has to be copied.
func dot(s isa, rows, cols int) {
	name := fmt.Sprintf("gemmDot%dx%d%s", rows, cols, s.name)
	TEXT(name, NOSPLIT, "func(k int, a *float32, aRow int, b *float32, bRow int, c *float32, cRow int, accumulate bool)")
	Doc(fmt.Sprintf("%s is the gemmDot of %d rows and %d columns.", name, rows, cols))
	Pragma("noescape")

	k := Load(Param("k"), GP64())
	a := rowsOf("a", "aRow", rows)
	b := rowsOf("b", "bRow", cols)

	sum := s.zeros(rows, cols)
	step := func(load func(m Mem, x VecVirtual)) {
		x := make([]VecVirtual, rows)
		for r := range x {
			x[r] = s.reg()
			load(a(r), x[r])
		}
		for c := range cols {
			y := s.reg()
			load(b(c), y)
			for r := range rows {
				VFMADD231PS(x[r], y, sum[r][c])
			}
		}
	}
	SUBQ(Imm(uint64(s.lanes)), k)
	JLT(LabelRef("rest"))
	Label("loop")
	step(func(m Mem, x VecVirtual) { VMOVUPS(m, x) })
	ADDQ(Imm(uint64(s.bytes())), a(0).Base)
	ADDQ(Imm(uint64(s.bytes())), b(0).Base)
	SUBQ(Imm(uint64(s.lanes)), k)
	JGE(LabelRef("loop"))

	Label("rest")
	ADDQ(Imm(uint64(s.lanes)), k)
	JZ(LabelRef("add"))
	mask := s.firstLanes(k)
	step(func(m Mem, x VecVirtual) {
		if s.masked {
			VMOVUPS_Z(m, mask, x)
		} else {
			VMASKMOVPS(m, mask, x)
		}
	})

	Label("add")
	s.storeSums(sum)
	VZEROUPPER()
	RET()
}

// rowsOf returns the address of row r < n <= 4 of the matrix at the parameter base. Its rows are as
// far apart as the parameter stride says, in elements.
func rowsOf(base, stride string, n int) func(r int) Mem {
	p := Load(Param(base), GP64())
	s, s3 := GP64(), GP64()
	if n > 1 {
		Load(Param(stride), s)
		SHLQ(Imm(2), s)
	}
	if n > 3 {
		LEAQ(Mem{Base: s, Index: s, Scale: 2}, s3)
	}
	return func(r int) Mem { return rowAt(p, s, s3, r) }
}

// rowAt returns the address of row r < 4 of a matrix at base, with a row every stride bytes.
func rowAt(base, stride, stride3 Register, r int) Mem {
	switch r {
	case 0:
		return Mem{Base: base}
	case 3:
		return Mem{Base: base, Index: stride3, Scale: 1}
	}
	return Mem{Base: base, Index: stride, Scale: uint8(r)}
}

// storeSums writes the sums of the lanes, 1 or 4 columns in each row, to the parameter c, or adds
// them to it if the parameter accumulate is set.
func (s isa) storeSums(sum [][]VecVirtual) {
	rows := len(sum)
	c := Load(Param("c"), GP64())
	cRow := GP64()
	if rows > 1 {
		Load(Param("cRow"), cRow)
		SHLQ(Imm(2), cRow)
	}
	accumulate := Load(Param("accumulate"), GP8())
	for r := range rows {
		done := fmt.Sprintf("store%d", r)
		x := s.addLanes(sum[r])
		TESTB(accumulate, accumulate)
		JZ(LabelRef(done))
		if len(sum[r]) == 1 {
			VADDSS(Mem{Base: c}, x, x)
			Label(done)
			VMOVSS(x, Mem{Base: c})
		} else {
			VADDPS(Mem{Base: c}, x, x)
			Label(done)
			VMOVUPS(x, Mem{Base: c})
		}
		if r < rows-1 {
			ADDQ(cRow, c)
		}
	}
}

// addLanes adds the lanes of each of 1 or 4 vectors and returns the sums in the first lanes of a
// new vector.
func (s isa) addLanes(sums []VecVirtual) VecVirtual {
	half := make([]VecVirtual, len(sums))
	for i, x := range sums {
		half[i] = x
		if s.masked {
			high := YMM()
			half[i] = YMM()
			VEXTRACTF64X4(Imm(1), x, high)
			VADDPS(high, x.AsY(), half[i])
		}
	}
	x := half[0]
	if len(sums) == 4 {
		VHADDPS(half[1], half[0], half[0])
		VHADDPS(half[3], half[2], half[2])
		VHADDPS(half[2], half[0], half[0])
	} else {
		VHADDPS(x, x, x)
		VHADDPS(x, x, x)
	}
	high, low := XMM(), XMM()
	VEXTRACTF128(Imm(1), x, high)
	VADDPS(high, x.AsX(), low)
	return low
}
