package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// sums are the partial sums of a loop that is unrolled by `unroll`.
func sums(s ISA) []VecVirtual {
	v := make([]VecVirtual, unroll)
	for i := range v {
		v[i] = s.Zero()
	}
	return v
}

// total adds partial sums in pairs.
func total(v []VecVirtual, add func(a, b VecVirtual)) VecVirtual {
	for n := len(v) / 2; n > 0; n /= 2 {
		for i := range n {
			add(v[i], v[i+n])
		}
	}
	return v[0]
}

func returnSum(s ISA, v []VecVirtual) {
	sum := s.SumLanes(total(v, func(a, b VecVirtual) { s.AddTo(a, b) }))
	Store(sum.AsX(), ReturnIndex(0))
	End()
}

func reductions(s ISA) {
	s.Func("dot", "(a, b []float32) float32")
	a, b, sum := Ptr("a"), Ptr("b"), sums(s)
	s.Slices(length("a"), unroll, func(p Place, u int) { s.FMA(sum[u], p.Load(a), p.Operand(b)) })
	returnSum(s, sum)

	s.Func("dot3", "(a, b, c []float32) float32")
	a, b, sum = Ptr("a"), Ptr("b"), sums(s)
	c := Ptr("c")
	s.Slices(length("a"), unroll, func(p Place, u int) {
		s.FMA(sum[u], s.Mul(p.Load(a), p.Operand(b)), p.Operand(c))
	})
	returnSum(s, sum)

	s.Func("sum", "(x []float32) float32")
	x, sum := Ptr("x"), sums(s)
	s.Slices(length("x"), unroll, func(p Place, u int) { s.AddTo(sum[u], p.Operand(x)) })
	returnSum(s, sum)

	s.Func("max", "(x []float32) float32")
	x = Ptr("x")
	least := s.Load(s.Const(math.Inf(-1)))
	most := make([]VecVirtual, unroll)
	for i := range most {
		most[i] = s.Load(least)
	}
	s.Slices(length("x"), unroll, func(p Place, u int) {
		s.Set(most[u], s.Max(p.Only(p.Load(x), least), most[u]))
	})
	m := s.MaxLanes(total(most, func(a, b VecVirtual) { VMAXPS(b, a, a) }))
	Store(m.AsX(), ReturnIndex(0))
	End()

	sumSquares(s)

	s.Func("softmaxExp", "(dst, x []float32, max float32) float32")
	dst, x, top, exp := Ptr("dst"), Ptr("x"), s.SplatParam("max"), s.NewExp()
	zero, sum1 := s.Zero(), s.Zero()
	s.Slices(length("dst"), 1, func(p Place, _ int) {
		e := exp.Of(s.Sub(p.Load(x), top))
		p.Store(e, dst)
		s.AddTo(sum1, p.Only(e, zero))
	})
	returnSum(s, []VecVirtual{sum1})
}

// sumSquares widens each half of a vector to float64.
func sumSquares(s ISA) {
	s.Func("sumSquares", "(x []float32) float64")
	x, sum := Ptr("x"), sums(s)
	s.Slices(length("x"), unroll/2, func(p Place, u int) {
		v, low, high := p.Load(x), s.Vec(), s.Vec()
		if s.Wide() {
			VCVTPS2PD(v.AsY(), low)
			VEXTRACTF64X4(Imm(1), v, v.AsY())
			VCVTPS2PD(v.AsY(), high)
		} else {
			VCVTPS2PD(v.AsX(), low)
			VEXTRACTF128(Imm(1), v, v.AsX())
			VCVTPS2PD(v.AsX(), high)
		}
		VFMADD231PD(low, low, sum[2*u])
		VFMADD231PD(high, high, sum[2*u+1])
	})
	v := total(sum, func(a, b VecVirtual) { VADDPD(b, a, a) })
	low, high := v.AsX(), XMM()
	if s.Wide() {
		VEXTRACTF64X4(Imm(1), v, high.AsY())
		VADDPD(high.AsY(), v.AsY(), v.AsY())
	}
	VEXTRACTF128(Imm(1), v.AsY(), high)
	VADDPD(high, low, low)
	VPSHUFD(Imm(0b1110), low, high)
	VADDSD(high, low, low)
	Store(low, ReturnIndex(0))
	End()
}
