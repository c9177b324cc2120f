package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// multiplyAdds is simd.fmaVectors: more than the latency of a multiply-add times the number that a
// core starts per cycle, on every CPU so far.
const multiplyAdds = 12

// limits are the functions that measure peaks.
func limits(s ISA) {
	s.Func("fmas", "(rounds int)")
	rounds, one := Int("rounds"), s.Load(s.Const(1))
	sum := make([]VecVirtual, multiplyAdds)
	for i := range sum {
		sum[i] = s.Zero()
	}
	Repeat("round", rounds, func() {
		for _, v := range sum {
			s.FMA(v, one, one)
		}
	})
	End()

	s.Func("triad", "(dst []float32, a float32, x, y []float32)")
	dst, a, x, y := Ptr("dst"), s.SplatParam("a"), Ptr("x"), Ptr("y")
	s.Slices(length("dst"), unroll, func(p Place, _ int) {
		sum := p.Load(x)
		s.FMA(sum, a, p.Operand(y))
		p.Stream(sum, dst)
	})
	SFENCE()
	End()
}
