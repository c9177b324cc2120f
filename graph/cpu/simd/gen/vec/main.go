// Command vec writes the assembly of the vector functions, and its Go declarations. The Go versions in
// vec_portable.go define what each computes. Run it with go generate in graph/cpu/simd.
package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// unroll is the number of vectors that functions of one or two operations take at a time. Where there is
// more to do for a vector, out-of-order execution overlaps successive ones as well.
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
	convolutionColumns(AVX512)
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
	y2, x2, half := copyOf(y1), copyOf(x1), length("cos")
	bytes := copyOf(half)
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

// sums are the partial sums of a loop unrolled as often.
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

// taps emits body for each tap, with pointers to the tap's rows of both operands.
func taps(w, x, wStride, xStride Register, body func(w, x Register)) {
	n, wk, xk := Int("taps"), GP64(), GP64()
	MOVQ(w, wk)
	MOVQ(x, xk)
	Repeat(NewLabel("tap"), n, func() {
		body(wk, xk)
		ADDQ(wStride, wk)
		ADDQ(xStride, xk)
	})
}

func convolution(s ISA) {
	s.Func("convSiLU", "(dst, bias, w []float32, wStride int, x []float32, xStride, taps int)")
	dst, bias, w, x := Ptr("dst"), Ptr("bias"), Ptr("w"), Ptr("x")
	wStride, xStride := ByteStride("wStride"), ByteStride("xStride")
	sigmoid := s.NewSigmoid()
	s.Slices(length("dst"), 1, func(p Place, _ int) {
		pre := p.Load(bias)
		taps(w, x, wStride, xStride, func(w, x Register) { s.FMA(pre, p.Load(w), p.Operand(x)) })
		p.Store(sigmoid.SiLU(pre), dst)
	})
	End()

	s.Func("convSiLUGrad", "(dpre, dw, dbias, dy, bias, w []float32, wStride int, x []float32, xStride, taps int)")
	dpre, dbias, dy, bias := Ptr("dpre"), Ptr("dbias"), Ptr("dy"), Ptr("bias")
	w, x, wStride, xStride = Ptr("w"), Ptr("x"), ByteStride("wStride"), ByteStride("xStride")
	sigmoid = s.NewSigmoid()
	s.Slices(length("dpre"), 1, func(p Place, _ int) {
		pre := p.Load(bias)
		taps(w, x, wStride, xStride, func(w, x Register) { s.FMA(pre, p.Load(w), p.Operand(x)) })
		_, d := sigmoid.SiLUSlope(pre)
		s.MulBy(d, p.Operand(dy))
		p.Store(d, dpre)
		p.Store(s.Add(d, p.Operand(dbias)), dbias)
		taps(Ptr("dw"), x, wStride, xStride, func(dw, x Register) {
			sum := p.Load(dw)
			s.FMA(sum, d, p.Operand(x))
			p.Store(sum, dw)
		})
	})
	End()

	s.Func("convInput", "(dx, w []float32, wStride int, dpre []float32, dpreStride, taps int)")
	dx, w, dpre := Ptr("dx"), Ptr("w"), Ptr("dpre")
	wStride, dpreStride := ByteStride("wStride"), ByteStride("dpreStride")
	last := Int("taps") // the taps' rows are taken from the last to the first
	DECQ(last)
	IMULQ(wStride, last)
	ADDQ(last, w)
	NEGQ(wStride)
	s.Slices(length("dx"), 1, func(p Place, _ int) {
		sum := s.Zero()
		taps(w, dpre, wStride, dpreStride, func(w, dpre Register) { s.FMA(sum, p.Load(w), p.Operand(dpre)) })
		p.Store(sum, dx)
	})
	End()
}

// columnTaps is simd.convTaps.
const columnTaps = 4

// column goes down one vector of channels of a matrix: row by row, and prefetches the row that it reaches
// simd.convRows later, as the hardware's prefetchers don't follow a stride of more than a page.
type column struct{ pointer, stride, ahead Register }

func newColumn(name string) column {
	c := column{Ptr(name), ByteStride(name + "Stride"), GP64()}
	MOVQ(c.stride, c.ahead)
	SHLQ(Imm(5), c.ahead)
	return c
}

func (c column) row() Mem { return Mem{Base: c.pointer} }

func (c column) next() { ADDQ(c.stride, c.pointer) }

func (c column) prefetch() { PREFETCHT1(Mem{Base: c.pointer, Index: c.ahead, Scale: 1}) }

// columnRows loads rows of parameter name, a vector each, and returns what stores them again.
func columnRows(s ISA, name string, stride Register) (rows []VecVirtual, store func()) {
	p := Ptr(name)
	for range columnTaps {
		rows = append(rows, s.Load(Mem{Base: p}))
		ADDQ(stride, p)
	}
	return rows, func() {
		p := Ptr(name)
		for _, v := range rows {
			s.Store(v, Mem{Base: p})
			ADDQ(stride, p)
		}
	}
}

// shift forgets the first of successive rows.
func shift(s ISA, rows []VecVirtual) {
	for i := range len(rows) - 1 {
		s.Set(rows[i], rows[i+1])
	}
}

func convolutionColumns(s ISA) {
	s.Func("convSiLUColumn", "(y []float32, yStride int, bias, w []float32, wStride int, x []float32, xStride, steps int)")
	x, y := newColumn("x"), newColumn("y")
	w, _ := columnRows(s, "w", ByteStride("wStride"))
	bias, sigmoid := s.Load(Mem{Base: Ptr("bias")}), s.NewSigmoid()
	recent := []VecVirtual{s.Vec(), s.Vec(), s.Vec(), s.Vec()} // the inputs of a row, oldest first
	for _, v := range recent[:columnTaps-1] {
		s.Set(v, x.row())
		x.next()
	}
	Repeat("row", Int("steps"), func() {
		s.Set(recent[columnTaps-1], x.row())
		x.prefetch()
		y.prefetch()
		pre := s.Load(bias)
		for j, v := range recent {
			s.FMA(pre, w[j], v)
		}
		s.Store(sigmoid.SiLU(pre), y.row())
		shift(s, recent)
		x.next()
		y.next()
	})
	End()

	s = s.Busy()
	s.Func("convSiLUGradColumn", "(dx []float32, dxStride int, dw, dbias, dy []float32, dyStride int, bias, w []float32, wStride int, x []float32, xStride, steps int)")
	x = newColumn("x")
	dx, dy := newColumn("dx"), newColumn("dy")
	wStride := ByteStride("wStride")
	w, _ = columnRows(s, "w", wStride)
	dw, storeDW := columnRows(s, "dw", wStride)
	bias, dbias := s.Load(Mem{Base: Ptr("bias")}), s.Load(Mem{Base: Ptr("dbias")})
	sigmoid = s.NewSigmoid()
	recent = []VecVirtual{s.Vec(), s.Vec(), s.Vec(), s.Vec()}
	dpre := []VecVirtual{s.Vec(), s.Vec(), s.Vec(), s.Vec()}
	started := copyOf(dx.pointer)
	for i := range columnTaps - 1 {
		s.Set(recent[i], x.row())
		s.Set(dpre[i], Mem{Base: started})
		x.next()
		ADDQ(dx.stride, started)
	}
	Repeat("row", Int("steps"), func() {
		s.Set(recent[columnTaps-1], x.row())
		x.prefetch()
		dy.prefetch()
		dx.prefetch()
		pre := s.Load(bias)
		for j, v := range recent {
			s.FMA(pre, w[j], v)
		}
		_, d := sigmoid.SiLUSlope(pre)
		s.MulBy(d, dy.row())
		s.Set(dpre[columnTaps-1], d)
		s.AddTo(dbias, d)
		sum := s.Mul(w[columnTaps-1], dpre[0])
		for j, v := range recent {
			s.FMA(dw[j], d, v)
			if j > 0 {
				s.FMA(sum, w[columnTaps-1-j], dpre[j])
			}
		}
		s.Store(sum, dx.row())
		shift(s, recent)
		shift(s, dpre)
		x.next()
		dy.next()
		dx.next()
	})
	for _, v := range dpre[:columnTaps-1] {
		s.Store(v, dx.row())
		dx.next()
	}
	storeDW()
	s.Store(dbias, Mem{Base: Ptr("dbias")})
	End()
}

func copyOf(r Register) Register {
	c := GP64()
	MOVQ(r, c)
	return c
}

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
