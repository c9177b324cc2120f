// Command vec writes the assembly of the vector functions, and its Go declarations. The Go versions in
// vec_portable.go define what each computes. Run it with go generate in graph/cpu/simd.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// unroll is the number of vectors that functions of one or two operations process at a time. Where
// there is more to do per vector, out-of-order execution overlaps successive ones anyway.
const unroll = 4

func main() {
	Each(activations)
	Each(arithmetic)
	Each(swiGLU)
	Each(gatedUpdate)
	Each(rotate)
	Each(reductions)
	Each(rmsNorm)
	Each(adamW)
	Each(convolution)
	convolutionColumn(AVX512)
	convolutionGradColumn(AVX512.Busy())
	Each(limits)
	Generate()
}

func length(name string) Register { return Load(Param(name).Len(), GP64()) }

func activations(s ISA) {
	unary := func(name string, prepare func() func(Op) VecVirtual) {
		s.Func(name, "(dst, x []float32)")
		dst, x, f := Ptr("dst"), Ptr("x"), prepare()
		s.Slices(length("dst"), 1, func(p Place, _ int) { p.Store(f(p.Load(x)), dst) })
		End()
	}
	unary("exp", func() func(Op) VecVirtual { return s.NewExp().Of })
	unary("sigmoid", func() func(Op) VecVirtual { return s.NewSigmoid().Of })
	unary("silu", func() func(Op) VecVirtual { return s.NewSigmoid().SiLU })
	unary("softplus", func() func(Op) VecVirtual { return s.NewSoftplus().Of })

	s.Func("siluGrad", "(dst, x, dy []float32)")
	dst, x, dy, sigmoid := Ptr("dst"), Ptr("x"), Ptr("dy"), s.NewSigmoid()
	s.Slices(length("dst"), 1, func(p Place, _ int) {
		_, slope := sigmoid.SiLUSlope(p.Load(x))
		s.MulBy(slope, p.Operand(dy))
		p.Store(slope, dst)
	})
	End()
}

func arithmetic(s ISA) {
	binary := func(name string, op func(a, b Op) VecVirtual) {
		s.Func(name, "(dst, a, b []float32)")
		dst, a, b := Ptr("dst"), Ptr("a"), Ptr("b")
		s.Slices(length("dst"), unroll, func(p Place, _ int) { p.Store(op(p.Load(a), p.Operand(b)), dst) })
		End()
	}
	binary("add", s.Add)
	binary("mul", s.Mul)

	s.Func("mulAdd", "(dst, a, b []float32)")
	dst, a, b := Ptr("dst"), Ptr("a"), Ptr("b")
	s.Slices(length("dst"), unroll, func(p Place, _ int) {
		sum := p.Load(dst)
		s.FMA(sum, p.Load(a), p.Operand(b))
		p.Store(sum, dst)
	})
	End()

	s.Func("scale", "(dst []float32, a float32, x []float32)")
	dst, x, factor := Ptr("dst"), Ptr("x"), s.SplatParam("a")
	s.Slices(length("dst"), unroll, func(p Place, _ int) { p.Store(s.Mul(factor, p.Operand(x)), dst) })
	End()

	s.Func("axpy", "(a float32, x, y []float32)")
	factor, x = s.SplatParam("a"), Ptr("x")
	y := Ptr("y")
	s.Slices(length("x"), unroll, func(p Place, _ int) {
		sum := p.Load(y)
		s.FMA(sum, factor, p.Operand(x))
		p.Store(sum, y)
	})
	End()
}

func swiGLU(s ISA) {
	s.Func("swiGLU", "(dst, gate, up []float32)")
	dst, gate, up, sigmoid := Ptr("dst"), Ptr("gate"), Ptr("up"), s.NewSigmoid()
	s.Slices(length("dst"), 1, func(p Place, _ int) {
		p.Store(s.Mul(sigmoid.SiLU(p.Load(gate)), p.Operand(up)), dst)
	})
	End()

	s.Func("swiGLUGrad", "(dgate, dup, gate, up, dy []float32)")
	dgate, dup, gate, up, dy := Ptr("dgate"), Ptr("dup"), Ptr("gate"), Ptr("up"), Ptr("dy")
	sigmoid = s.NewSigmoid()
	s.Slices(length("gate"), 1, func(p Place, _ int) {
		x, d := p.Load(gate), p.Load(dy)
		sig, slope := sigmoid.SiLUSlope(x)
		s.MulBy(slope, s.Mul(d, p.Operand(up)))
		s.MulBy(sig, x)
		s.MulBy(sig, d)
		p.Store(slope, dgate)
		p.Store(sig, dup)
	})
	End()
}

func gatedUpdate(s ISA) {
	s.Func("gatedUpdate", "(dst, x, gate, h []float32)")
	dst, x, gate, h, sigmoid := Ptr("dst"), Ptr("x"), Ptr("gate"), Ptr("h"), s.NewSigmoid()
	s.Slices(length("dst"), 1, func(p Place, _ int) {
		old := p.Load(x)
		step := s.Sub(sigmoid.SiLU(p.Load(h)), old)
		s.MulBy(step, sigmoid.Of(p.Load(gate)))
		p.Store(s.Add(old, step), dst)
	})
	End()

	s.Func("gatedUpdateGrad", "(dx, dgate, dh, x, gate, h, dy []float32)")
	dx, dgate, dh := Ptr("dx"), Ptr("dgate"), Ptr("dh")
	x, gate, h = Ptr("x"), Ptr("gate"), Ptr("h")
	dy := Ptr("dy")
	sigmoid = s.NewSigmoid()
	s.Slices(length("dx"), 1, func(p Place, _ int) {
		open, closed := sigmoid.Both(p.Load(gate))
		s.MulBy(open, p.Operand(dy))
		old := p.Load(h)
		sig, slope := sigmoid.SiLUSlope(old)
		s.MulBy(slope, open)
		s.MulBy(sig, old)
		s.MulBy(open, s.Sub(sig, p.Operand(x)))
		s.MulBy(open, closed)
		s.MulBy(closed, p.Operand(dy))
		p.Store(open, dgate)
		p.Store(slope, dh)
		p.Store(closed, dx)
	})
	End()
}

func rotate(s ISA) {
	s.Func("rotate", "(y, x, cos, sin []float32)")
	y1, x1, cos, sin := Ptr("y"), Ptr("x"), Ptr("cos"), Ptr("sin")
	y2, x2, half := CopyOf(y1), CopyOf(x1), length("cos")
	bytes := CopyOf(half)
	SHLQ(Imm(2), bytes)
	ADDQ(bytes, y2)
	ADDQ(bytes, x2)
	s.Slices(half, 1, func(p Place, _ int) {
		a, b, c, d := p.Load(x1), p.Load(x2), p.Load(cos), p.Load(sin)
		first, second := s.Mul(a, c), s.Mul(b, c)
		s.FNMA(first, b, d)
		s.FMA(second, a, d)
		p.Store(first, y1)
		p.Store(second, y2)
	})
	End()
}

func rmsNorm(s ISA) {
	s.Func("scaleMul", "(dst []float32, a float32, x, w []float32)")
	dst, a, x, w := Ptr("dst"), s.SplatParam("a"), Ptr("x"), Ptr("w")
	s.Slices(length("dst"), unroll, func(p Place, _ int) {
		p.Store(s.Mul(s.Mul(a, p.Operand(x)), p.Operand(w)), dst)
	})
	End()

	s.Func("rmsNormGrad", "(dx, dw, x, w, dy []float32, rstd, c float32)")
	dx, dw, x, w, dy := Ptr("dx"), Ptr("dw"), Ptr("x"), Ptr("w"), Ptr("dy")
	rstd, c := s.SplatParam("rstd"), s.SplatParam("c")
	s.Slices(length("x"), 2, func(p Place, _ int) {
		v, d, sum := p.Load(x), s.Mul(rstd, p.Operand(dy)), p.Load(dw)
		s.FMA(sum, d, v)
		s.MulBy(d, p.Operand(w))
		s.FNMA(d, c, v)
		p.Store(sum, dw)
		p.Store(d, dx)
	})
	End()
}

func adamW(s ISA) {
	s.Func("adamW", "(p, g, m, v []float32, decay, gradScale, b1, c1, b2, c2, rsqrtBC2, eps, step float32)")
	pp, gp, mp, vp := Ptr("p"), Ptr("g"), Ptr("m"), Ptr("v")
	decay, gradScale, step := s.SplatParam("decay"), s.SplatParam("gradScale"), s.SplatParam("step")
	b1, c1, b2, c2 := s.SplatParam("b1"), s.SplatParam("c1"), s.SplatParam("b2"), s.SplatParam("c2")
	rsqrtBC2, eps := s.SplatParam("rsqrtBC2"), s.SplatParam("eps")
	s.Slices(length("p"), 1, func(p Place, _ int) {
		g := s.Mul(gradScale, p.Operand(gp))
		m := s.Mul(b1, p.Operand(mp))
		s.FMA(m, c1, g)
		p.Store(m, mp)
		v := s.Mul(b2, p.Operand(vp))
		s.FMA(v, s.Mul(c2, g), g)
		p.Store(v, vp)
		denominator := s.Sqrt(v)
		s.MulAdd(denominator, rsqrtBC2, eps)
		w := s.Mul(decay, p.Operand(pp))
		s.FNMA(w, step, s.Div(m, denominator))
		p.Store(w, pp)
	})
	End()
}
