package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// multiplyAdds is simd.fmaVectors: more than the latency of a multiply-add times those that a core starts in a
// cycle, on every processor so far.
const multiplyAdds = 12

// limits are what peaks are measured with.
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
