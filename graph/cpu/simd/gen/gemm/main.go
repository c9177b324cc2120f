// Command gemm writes the assembly of the matrix-product kernels, and its Go declarations.
// Run it with go generate in graph/cpu/simd.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is a vector instruction set: its register, and the largest tile whose sums fit the register file
// with room for a row of B and one broadcast element of A.
type isa struct {
	name   string
	reg    func() VecVirtual
	lanes  int
	rows   int  // of a tile
	vecs   int  // vectors in a row of a tile
	wide   int  // rows of the largest tile of wideVecs vectors
	masked bool // loads and stores take a mask register
}

var (
	avx2   = isa{name: "AVX2", reg: YMM, lanes: 8, rows: 6, vecs: 2, wide: 2}
	avx512 = isa{name: "AVX512", reg: ZMM, lanes: 16, rows: 14, vecs: 2, wide: 3, masked: true}
)

// wideVecs is the width of the tiles for products of few rows, where a tile of normal width has too few
// independent sums to hide the latency of a multiply-add: 4 cycles, two a cycle.
const wideVecs = 4

// dotRows and dotCols bound the tiles of dot products: rows of A by rows of B.
var dotRows = map[string]int{"AVX2": 2, "AVX512": 4}

const dotCols = 4

// copyVecs is the widest panel of either level in vectors of 8 lanes.
const copyVecs = 4

func main() {
	lanes()
	for _, s := range []isa{avx2, avx512} {
		for vecs := 1; vecs <= s.vecs; vecs++ {
			for rows := 1; rows <= s.rows; rows++ {
				tile(s, rows, vecs)
			}
		}
		for rows := 1; rows <= s.wide; rows++ {
			tile(s, rows, wideVecs)
		}
	}
	for _, s := range []isa{avx2, avx512} {
		for rows := 1; rows <= dotRows[s.name]; rows++ {
			dot(s, rows, 1)
			dot(s, rows, dotCols)
		}
	}
	transpose(4)
	transpose(8)
	for vecs := 1; vecs <= copyVecs; vecs++ {
		copyRows(vecs)
	}
	Generate()
}

func (s isa) bytes() int { return 4 * s.lanes }

// tile emits the product of rows rows of A with vecs vectors of B over k > 0 steps. The sums stay in
// registers; A's element is broadcast once and multiplied with the whole row of B, which keeps the load
// ports (two a cycle) below the multiply-adds (two a cycle).
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

	// Row r of A is at a + r*aRow: an odd multiple of aRow in a register, times 1, 2, 4 or 8.
	odd := map[int]GPVirtual{}
	if rows > 1 {
		odd[1] = Load(Param("aRow"), GP64()).(GPVirtual)
		SHLQ(Imm(2), odd[1])
		for m := 3; m < rows; m += 2 {
			odd[m] = GP64()
			LEAQ(Mem{Base: odd[m-2], Index: odd[1], Scale: 2}, odd[m])
		}
	}
	rowOfA := func(r int) Mem {
		if r == 0 {
			return Mem{Base: a}
		}
		scale := uint8(1)
		for r%2 == 0 {
			r, scale = r/2, scale*2
		}
		return Mem{Base: a, Index: odd[r], Scale: scale}
	}

	sum := make([][]VecVirtual, rows)
	for r := range sum {
		sum[r] = make([]VecVirtual, vecs)
		for v := range sum[r] {
			sum[r][v] = s.reg()
			s.zero(sum[r][v])
		}
	}
	step := func() {
		rowB := make([]VecVirtual, vecs)
		for v := range rowB {
			rowB[v] = s.reg()
			VMOVUPS(Mem{Base: b, Disp: v * s.bytes()}, rowB[v])
		}
		// A copied panel of B is read in the order of its addresses, from the second-level cache.
		for v := 0; v < vecs*s.bytes(); v += 64 {
			PREFETCHT0(Mem{Base: b, Index: bK, Scale: 8, Disp: v})
		}
		for r := range rows {
			element := s.reg()
			VBROADCASTSS(rowOfA(r), element)
			for v := range vecs {
				VFMADD231PS(rowB[v], element, sum[r][v])
			}
		}
		ADDQ(aK, a)
		ADDQ(bK, b)
	}

	// The first steps also ask for the tile of C, a row each, which is needed after the last one. Asking
	// for all of it at once would take the buffers that outstanding loads of A and B wait in.
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

// addTile adds the tile at c to sum where the parameter accumulate asks for it, and else jumps to
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
	// A masked store takes many micro-operations on some CPUs: whole vectors go without.
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

// dot emits the products of rows rows of A with cols rows of B, all of k elements. The vectors run along
// K, so that neither operand has to be copied.
func dot(s isa, rows, cols int) {
	name := fmt.Sprintf("gemmDot%dx%d%s", rows, cols, s.name)
	TEXT(name, NOSPLIT, "func(k int, a *float32, aRow int, b *float32, bRow int, c *float32, cRow int, accumulate bool)")
	Doc(fmt.Sprintf("%s is the gemmDot of %d rows and %d columns.", name, rows, cols))
	Pragma("noescape")

	k := Load(Param("k"), GP64())
	rowsOf := func(base, stride string, n int) func(int) Mem {
		p := Load(Param(base), GP64())
		s, s3 := GP64(), GP64()
		if n > 1 {
			Load(Param(stride), s)
			SHLQ(Imm(2), s)
		}
		if n > 3 {
			LEAQ(Mem{Base: s, Index: s, Scale: 2}, s3)
		}
		return func(r int) Mem {
			switch r {
			case 0:
				return Mem{Base: p}
			case 3:
				return Mem{Base: p, Index: s3, Scale: 1}
			}
			return Mem{Base: p, Index: s, Scale: uint8(r)}
		}
	}
	a := rowsOf("a", "aRow", rows)
	b := rowsOf("b", "bRow", cols)

	sum := make([][]VecVirtual, rows)
	for r := range sum {
		sum[r] = make([]VecVirtual, cols)
		for c := range sum[r] {
			sum[r][c] = s.reg()
			s.zero(sum[r][c])
		}
	}
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
		if cols == 1 {
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
	VZEROUPPER()
	RET()
}

// addLanes adds the lanes of each of 1 or 4 vectors and returns the sums in the first lanes of another.
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
	row := func(r, disp int) Mem {
		base := src
		if r >= 4 {
			base, r = src4, r-4
		}
		m := Mem{Base: base, Disp: disp}
		switch r {
		case 1, 2:
			m.Index, m.Scale = srcRow, uint8(r)
		case 3:
			m.Index, m.Scale = src3, 1
		}
		return m
	}
	reg := func() VecVirtual {
		if rows == 4 {
			return XMM()
		}
		return YMM()
	}
	for column := 0; column < 8; column += 4 {
		// x[r] holds 4 columns of row r and, in its high half, of row r+4, so that 4x4 transposes within
		// 128-bit halves are left.
		var x [4]VecVirtual
		for r := range x {
			x[r] = reg()
			VMOVUPS(row(r, 4*column), x[r].AsX())
			if rows == 8 {
				VINSERTF128(Imm(1), row(r+4, 4*column), x[r], x[r])
			}
		}
		lo01, hi01, lo23, hi23 := reg(), reg(), reg(), reg()
		VUNPCKLPS(x[1], x[0], lo01)
		VUNPCKHPS(x[1], x[0], hi01)
		VUNPCKLPS(x[3], x[2], lo23)
		VUNPCKHPS(x[3], x[2], hi23)
		VUNPCKLPD(lo23, lo01, x[0])
		VUNPCKHPD(lo23, lo01, x[1])
		VUNPCKLPD(hi23, hi01, x[2])
		VUNPCKHPD(hi23, hi01, x[3])
		VMOVUPS(x[0], Mem{Base: dst})
		VMOVUPS(x[1], Mem{Base: dst, Index: dstRow, Scale: 1})
		VMOVUPS(x[2], Mem{Base: dst, Index: dstRow, Scale: 2})
		VMOVUPS(x[3], Mem{Base: dst, Index: dst3, Scale: 1})
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

// copyRows emits the copy of rows that vecs vectors of 8 lanes cover. The last of them may overlap the one
// before it.
func copyRows(vecs int) {
	name := fmt.Sprintf("gemmCopy%dAVX2", vecs)
	TEXT(name, NOSPLIT, "func(dst *float32, dstRow int, src *float32, srcRow, rows, cols int)")
	Doc(fmt.Sprintf("%s copies rows of %d < cols <= %d elements, at least 8.", name, 8*(vecs-1), 8*vecs))
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
		x := YMM()
		from, to := Mem{Base: src, Disp: 32 * v}, Mem{Base: dst, Disp: 32 * v}
		if v == vecs-1 {
			from = Mem{Base: src, Index: cols, Scale: 4, Disp: -32}
			to = Mem{Base: dst, Index: cols, Scale: 4, Disp: -32}
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
