package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tile emits the product of `rows` rows of A with vecs vectors of B over k > 0 steps. The sums stay
// in registers; an element of A is broadcast once and multiplied with the whole row of B, which
// keeps the load ports (two per cycle) less busy than the multiply-adds (two per cycle).
func tile(s isa, rows, vecs int) {
	TEXT(fmt.Sprintf("gemmTile%dx%d%s", rows, vecs*s.lanes, s.name), NOSPLIT,
		"func(k int, a *float32, aRow, aK int, b *float32, bK int, c *float32, cRow, last int, accumulate bool)")
	Doc(fmt.Sprintf("gemmTile%dx%d%s is the gemmTile of %d rows and %d columns.", rows, vecs*s.lanes, s.name, rows, vecs*s.lanes))
	Pragma("noescape")

	k := Load(Param("k"), GP64())
	a := Load(Param("a"), GP64())
	aK := Load(Param("aK"), GP64())
	b := Load(Param("b"), GP64())
	bK := Load(Param("bK"), GP64())
	SHLQ(Imm(2), aK)
	SHLQ(Imm(2), bK)

	rowOfA := rowsOfA(a, rows)
	sum := s.zeros(rows, vecs)
	step := func() {
		s.addOuterProduct(sum, rowOfA, b, bK)
		ADDQ(aK, a)
		ADDQ(bK, b)
	}

	// The first steps also prefetch the tile of C, a row each, which is needed after the last step.
	// Prefetching all of it at once would occupy the buffers for outstanding loads of A and B.
	c := Load(Param("c"), GP64())
	cRow := Load(Param("cRow"), GP64())
	SHLQ(Imm(2), cRow)
	touch := GP64()
	MOVQ(U32(uint32(rows)), touch)
	CMPQ(touch, k)
	CMOVQGT(k, touch)
	SUBQ(touch, k)
	Label("touch")
	for v := 0; v < vecs*s.bytes(); v += 64 {
		PREFETCHT0(Mem{Base: c, Disp: v})
	}
	ADDQ(cRow, c)
	step()
	DECQ(touch)
	JNZ(LabelRef("touch"))

	TESTQ(k, k)
	JZ(LabelRef("store"))
	Label("loop")
	step()
	DECQ(k)
	JNZ(LabelRef("loop"))

	Label("store")
	Load(Param("c"), c)
	Load(Param("cRow"), cRow)
	SHLQ(Imm(2), cRow)
	s.addTile(sum, c, cRow)
	Label("overwrite")
	s.storeTile(sum, c, cRow)
	VZEROUPPER()
	RET()
}

// rowsOfA returns the address of row r < rows of A. Row r is at a + r*aRow: an odd multiple of aRow
// in a register, times 1, 2, 4 or 8.
func rowsOfA(a Register, rows int) func(r int) Mem {
	odd := map[int]GPVirtual{}
	if rows > 1 {
		odd[1] = Load(Param("aRow"), GP64()).(GPVirtual)
		SHLQ(Imm(2), odd[1])
		for m := 3; m < rows; m += 2 {
			odd[m] = GP64()
			LEAQ(Mem{Base: odd[m-2], Index: odd[1], Scale: 2}, odd[m])
		}
	}
	return func(r int) Mem {
		if r == 0 {
			return Mem{Base: a}
		}
		scale := uint8(1)
		for r%2 == 0 {
			r, scale = r/2, scale*2
		}
		return Mem{Base: a, Index: odd[r], Scale: scale}
	}
}

// addOuterProduct adds the products of an element of each row of A with the row at b to sum.
func (s isa) addOuterProduct(sum [][]VecVirtual, rowOfA func(int) Mem, b, bK Register) {
	rowB := make([]VecVirtual, len(sum[0]))
	for v := range rowB {
		rowB[v] = s.reg()
		VMOVUPS(Mem{Base: b, Disp: v * s.bytes()}, rowB[v])
	}
	// A copied panel of B is read in address order, from the L2 cache.
	for v := 0; v < len(rowB)*s.bytes(); v += 64 {
		PREFETCHT0(Mem{Base: b, Index: bK, Scale: 8, Disp: v})
	}
	for r := range sum {
		element := s.reg()
		VBROADCASTSS(rowOfA(r), element)
		for v := range rowB {
			s.multiplyAdd(rowB[v], element, sum[r][v])
		}
	}
}

// addTile adds the tile at c to sum if the parameter accumulate is set, and otherwise jumps to
// "overwrite". Only the first "last" lanes of a row's last vector are read.
func (s isa) addTile(sum [][]VecVirtual, c, cRow Register) {
	mask := s.lastMask()
	accumulate := Load(Param("accumulate"), GP8())
	TESTB(accumulate, accumulate)
	JZ(LabelRef("overwrite"))
	at := GP64()
	MOVQ(c, at)
	for r, row := range sum {
		for v, x := range row {
			m := Mem{Base: at, Disp: v * s.bytes()}
			switch {
			case v < len(row)-1:
				VADDPS(m, x, x)
			case s.masked:
				VADDPS(m, x, mask, x)
			default:
				old := s.reg()
				VMASKMOVPS(m, mask, old)
				VADDPS(old, x, x)
			}
		}
		if r < len(sum)-1 {
			ADDQ(cRow, at)
		}
	}
}

// storeTile writes sum to the tile at c; of a row's last vector only the first "last" lanes.
func (s isa) storeTile(sum [][]VecVirtual, c, cRow Register) {
	store := func(storeLast func(x VecVirtual, m Mem)) {
		at := GP64()
		MOVQ(c, at)
		for r, row := range sum {
			for v, x := range row {
				m := Mem{Base: at, Disp: v * s.bytes()}
				if v < len(row)-1 {
					VMOVUPS(x, m)
				} else {
					storeLast(x, m)
				}
			}
			if r < len(sum)-1 {
				ADDQ(cRow, at)
			}
		}
	}
	if s.masked {
		mask := s.lastMask()
		store(func(x VecVirtual, m Mem) { VMOVUPS(x, mask, m) })
		return
	}
	// A masked store takes many micro-operations on some CPUs, so whole vectors are stored without
	// a mask.
	last := Load(Param("last"), GP64())
	CMPQ(last, Imm(uint64(s.lanes)))
	JNE(LabelRef("partial"))
	store(func(x VecVirtual, m Mem) { VMOVUPS(x, m) })
	VZEROUPPER()
	RET()
	Label("partial")
	mask := s.lastMask()
	store(func(x VecVirtual, m Mem) { VMASKMOVPS(x, mask, m) })
}

// zeros returns rows of vectors of zeros.
func (s isa) zeros(rows, vecs int) [][]VecVirtual {
	sum := make([][]VecVirtual, rows)
	for r := range sum {
		sum[r] = make([]VecVirtual, vecs)
		for v := range sum[r] {
			sum[r][v] = s.reg()
			s.zero(sum[r][v])
		}
	}
	return sum
}

func (s isa) zero(r VecVirtual) {
	if s.masked {
		VPXORD(r, r, r)
		return
	}
	VXORPS(r, r, r)
}

// lastMask returns the mask of the first "last" lanes.
func (s isa) lastMask() Register { return s.firstLanes(Load(Param("last"), GP64())) }

// firstLanes returns the mask of the first n lanes, and overwrites n.
func (s isa) firstLanes(n Register) Register {
	if s.masked {
		bits := GP32()
		MOVQ(n, RCX)
		MOVL(U32(1), bits)
		SHLL(CL, bits)
		DECL(bits)
		mask := K()
		KMOVW(bits, mask)
		return mask
	}
	NEGQ(n)
	lanes := GP64()
	LEAQ(lanesTable, lanes)
	mask := s.reg()
	VMOVUPS(Mem{Base: lanes, Disp: s.bytes(), Index: n, Scale: 4}, mask)
	return mask
}

// lanesTable holds 8 lanes of ones and then 8 of zeros: a mask of n lanes starts 8-n lanes in.
var lanesTable Mem

func lanes() {
	lanesTable = GLOBL("gemmLanes", RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, I32(int32(i/8)-1))
	}
}
