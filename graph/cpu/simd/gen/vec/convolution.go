package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

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
	last := Int("taps") // the taps' rows are read from the last to the first
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

// column goes down one vector of channels of a matrix, row by row, and prefetches the row
// simd.convRows ahead, because the hardware prefetchers don't follow a stride of more than a page.
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

// columnRows loads rows of parameter name, a vector each, and returns a function that emits their
// stores.
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

// shift drops the first of successive rows.
func shift(s ISA, rows []VecVirtual) {
	for i := range len(rows) - 1 {
		s.Set(rows[i], rows[i+1])
	}
}

func convolutionColumn(s ISA) {
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
}

func convolutionGradColumn(s ISA) {
	s.Func("convSiLUGradColumn", "(dx []float32, dxStride int, dw, dbias, dy []float32, dyStride int, bias, w []float32, wStride int, x []float32, xStride, steps int)")
	x := newColumn("x")
	dx, dy := newColumn("dx"), newColumn("dy")
	wStride := ByteStride("wStride")
	w, _ := columnRows(s, "w", wStride)
	dw, storeDW := columnRows(s, "dw", wStride)
	bias, dbias := s.Load(Mem{Base: Ptr("bias")}), s.Load(Mem{Base: Ptr("dbias")})
	sigmoid := s.NewSigmoid()
	recent := []VecVirtual{s.Vec(), s.Vec(), s.Vec(), s.Vec()}
	dpre := []VecVirtual{s.Vec(), s.Vec(), s.Vec(), s.Vec()}
	started := CopyOf(dx.pointer)
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
