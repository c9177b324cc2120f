// Command gemm writes the assembly of the matrix-product kernels, and its Go declarations.
// Run it with go generate in graph/cpu/simd.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is a vector instruction set: its registers, and the largest tile whose sums fit in the
// register file together with a row of B and one broadcast element of A.
type isa struct {
	name   string
	reg    func() VecVirtual
	lanes  int
	rows   int  // of a tile
	vecs   int  // vectors in a row of a tile
	wide   int  // rows of the largest tile of wideVecs vectors
	masked bool // loads and stores take a mask register
	pairs  bool // an element is two bfloat16 numbers, neighbors along K
}

var (
	avx2   = isa{name: "AVX2", reg: YMM, lanes: 8, rows: 6, vecs: 2, wide: 2}
	avx512 = isa{name: "AVX512", reg: ZMM, lanes: 16, rows: 14, vecs: 2, wide: 3, masked: true}
	bf16   = isa{name: "BF16", reg: ZMM, lanes: 16, rows: 14, vecs: 2, masked: true, pairs: true}
)

// wideVecs is the width of the tiles for products with few rows, for which a tile of normal width
// has too few independent sums to hide the latency of a multiply-add: 4 cycles, at two per cycle.
const wideVecs = 4

// dotRows and dotCols bound the tiles of dot products: rows of A by rows of B.
var dotRows = map[string]int{"AVX2": 2, "AVX512": 4}

const dotCols = 4

// copyVecs is the widest panel of either level in vectors of 8 lanes.
const copyVecs = 4

func main() {
	lanes()
	for _, s := range []isa{avx2, avx512, bf16} {
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
	copyRows(2, isa{reg: XMM, lanes: 4}) // AVX2's panels of A are 6 rows high
	for vecs := 1; vecs <= copyVecs; vecs++ {
		copyRows(vecs, avx2)
	}
	widen(avx2)
	widen(avx512)
	round(avx2)
	round(avx512)
	pairs()
	pass.Compile = pass.Concat(pass.Compile, pass.FunctionPass(encodeBF16))
	Generate()
}

// multiplyAdd adds the products of a's and b's elements to sum.
func (s isa) multiplyAdd(b, a, sum VecVirtual) {
	if s.pairs {
		VDPBF16PS(b, a, sum)
		return
	}
	VFMADD231PS(b, a, sum)
}

func (s isa) bytes() int { return 4 * s.lanes }
