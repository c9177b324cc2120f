package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	. "github.com/sambatrain/sambatrain/graph/cpu/simd/gen/kernel"
)

// gradPasses emits the two passes of statesGrad over a chunk's timesteps.
type gradPasses struct {
	s       ISA
	w, sums work
	next    *ahead
	exp2    *Exp2

	b, bStride, c, cStride Register
}

func statesGrad(s ISA) {
	s.Func("scanStatesGrad", "(work, sums, dDecay, dh, h, decay []float32, width int, b []float32, bStride int, c []float32, cStride int, steps, n int, ahead []uintptr)")
	g := gradPasses{s: s}
	g.w, g.sums = work{s, Ptr("work")}, work{s, Ptr("sums")}
	width := ByteStride("width")
	g.b, g.bStride, g.c, g.cStride = Ptr("b"), ByteStride("bStride"), Ptr("c"), ByteStride("cStride")
	g.exp2 = s.NewExp2()
	g.next = newAhead(g.w.base)

	eachPanelBlock(s, width, func(states int, row Register, label string) {
		rates := rowsOf(s, "decay", row, width).load(states)
		for _, a := range rates {
			s.MulBy(a, s.Const(math.Log2E))
		}
		g.forward(label+"forward", rates, rowsOf(s, "h", row, width).load(states))

		a := rowsOf(s, "decay", row, width).load(states)
		dhRows, dDecayRows := rowsOf(s, "dh", row, width), rowsOf(s, "dDecay", row, width)
		dh, dDecay := dhRows.load(states), dDecayRows.load(states)
		g.backward(label+"backward", a, dh, dDecay)
		dhRows.store(dh)
		dDecayRows.store(dDecay)
		ADDQ(U32(sumRows*chunk*s.Bytes()), g.sums.base)
		advance(4*states, g.b, g.c)
	})
	End()
}

// forward computes the states h again and stores, for backward, what each state decays by and the
// decayed state. rates are in powers of two.
func (g *gradPasses) forward(label string, rates, h []VecVirtual) {
	s, w := g.s, g.w
	g.next.begin(label)
	timesteps(s, label, Int("steps"), func(offset Register) {
		g.next.line()
		d, du, y := s.Load(w.of(workDelta, offset)), s.Load(w.of(workDeltaU, offset)), s.Load(w.of(workY, offset))
		gy := s.Load(w.of(workGY, offset))
		products := make([]VecVirtual, len(h))
		for i := range h {
			e := g.exp2.Of(s.Mul(d, rates[i]))
			s.Store(e, w.of(rate(i), offset))
			s.MulBy(h[i], e)
			s.Store(h[i], w.of(decayed(i), offset))
			s.FMA(h[i], du, splat(g.b, i))
			s.FMA(y, h[i], splat(g.c, i))
			products[i] = s.Mul(h[i], gy)
		}
		g.add(sumC, offset, products)
		s.Store(y, w.of(workY, offset))
		ADDQ(g.bStride, g.b)
		ADDQ(g.cStride, g.c)
	})
}

// backward takes the states' gradients dh, and those of the decay a, from the last timestep to the
// first.
func (g *gradPasses) backward(label string, a, dh, dDecay []VecVirtual) {
	s, w := g.s, g.w
	g.next.begin(label)
	stepsBack(s, label, Int("steps"), func(offset Register) {
		g.next.line()
		SUBQ(g.bStride, g.b)
		SUBQ(g.cStride, g.c)
		d, du, gy := s.Load(w.of(workDelta, offset)), s.Load(w.of(workDeltaU, offset)), s.Load(w.of(workGY, offset))
		t, dd := s.Load(w.of(workS, offset)), s.Load(w.of(workDDelta, offset))
		products := make([]VecVirtual, len(dh))
		for i := range dh {
			s.FMA(dh[i], gy, splat(g.c, i))
			s.FMA(t, dh[i], splat(g.b, i))
			products[i] = s.Mul(dh[i], du)
			x := s.Mul(dh[i], w.of(decayed(i), offset))
			s.FMA(dd, x, a[i])
			s.FMA(dDecay[i], x, d)
			s.MulBy(dh[i], w.of(rate(i), offset))
		}
		g.add(sumB, offset, products)
		s.Store(t, w.of(workS, offset))
		s.Store(dd, w.of(workDDelta, offset))
	})
}

// add adds the products of 1 or 2 states to a row of the sums.
func (g *gradPasses) add(row int, offset Register, products []VecVirtual) {
	sum := products[0]
	if len(products) == statesAtOnce {
		sum = g.s.FoldPair(products[0], products[1])
	}
	g.s.AddTo(sum, g.sums.of(row, offset))
	g.s.Store(sum, g.sums.of(row, offset))
}

// The rows of the work array for state i of a block.
func rate(i int) int    { return workHistory + 2*i }
func decayed(i int) int { return workHistory + 2*i + 1 }

// stepsBack is timesteps in reverse order.
func stepsBack(s ISA, label string, steps Register, body func(offset Register)) {
	offset := CopyOf(steps)
	IMUL3Q(U32(s.Bytes()), offset, offset)
	Label(label)
	SUBQ(Imm(uint64(s.Bytes())), offset)
	body(offset)
	TESTQ(offset, offset)
	JNZ(LabelRef(label))
}

func gateGrad(s ISA) {
	s.Func("scanGateGrad", "(dz []float32, dzStride int, work, dy []float32, dyStride int, z []float32, zStride, steps int)")
	w := work{s, Ptr("work")}
	dz, dzStride, dy, dyStride := Ptr("dz"), ByteStride("dzStride"), Ptr("dy"), ByteStride("dyStride")
	z, zStride := Ptr("z"), ByteStride("zStride")
	sigmoid := s.NewSigmoid()
	timesteps(s, "step", Int("steps"), func(offset Register) {
		_, slope := sigmoid.SiLUSlope(s.Load(at(z)))
		s.MulBy(slope, at(dy))
		s.MulBy(slope, w.of(workY, offset))
		s.Store(slope, at(dz))
		ADDQ(dzStride, dz)
		ADDQ(dyStride, dy)
		ADDQ(zStride, z)
	})
	End()
}

func deltaGrad(s ISA) {
	s.Func("scanDeltaGrad", "(du []float32, duStride int, ddt []float32, ddtStride int, dBias, dSkip, work, u []float32, uStride int, skip []float32, steps int)")
	w := work{s, Ptr("work")}
	du, duStride, ddt, ddtStride := Ptr("du"), ByteStride("duStride"), Ptr("ddt"), ByteStride("ddtStride")
	u, uStride := Ptr("u"), ByteStride("uStride")
	skip := s.Load(at(Ptr("skip")))
	dBias, dSkip := s.Load(at(Ptr("dBias"))), s.Load(at(Ptr("dSkip")))
	timesteps(s, "step", Int("steps"), func(offset Register) {
		v, g, t := s.Load(at(u)), s.Load(w.of(workGY, offset)), s.Load(w.of(workS, offset))
		x := s.Load(w.of(workDDelta, offset))
		s.FMA(x, v, t)
		s.MulBy(x, w.of(workSig, offset))
		s.Store(x, at(ddt))
		s.AddTo(dBias, x)
		s.FMA(dSkip, g, v)
		s.MulBy(g, skip)
		s.FMA(g, t, w.of(workDelta, offset))
		s.Store(g, at(du))
		ADDQ(duStride, du)
		ADDQ(ddtStride, ddt)
		ADDQ(uStride, u)
	})
	s.Store(dBias, at(Ptr("dBias")))
	s.Store(dSkip, at(Ptr("dSkip")))
	End()
}

func addLanes(s ISA) {
	s.Func("scanAddLanes", "(dB []float32, dBStride int, dC []float32, dCStride int, sums []float32, steps, n int)")
	dB, dBStride, dC, dCStride := Ptr("dB"), ByteStride("dBStride"), Ptr("dC"), ByteStride("dCStride")
	sums := work{s, Ptr("sums")}
	eachBlock(func(states int, label string) {
		for i, dst := range []struct{ pointer, stride Register }{sumB: {dB, dBStride}, sumC: {dC, dCStride}} {
			row := CopyOf(dst.pointer)
			timesteps(s, fmt.Sprintf("%ssum%d", label, i), Int("steps"), func(offset Register) {
				v, before := s.Load(sums.of(i, offset)), XMM()
				if states == statesAtOnce {
					VMOVSD(at(row), before)
					VADDPS(before, s.SumPair(v).AsX(), before)
					VMOVSD(before, at(row))
				} else {
					VMOVSS(at(row), before)
					VADDSS(before, s.SumLanes(v).AsX(), before)
					VMOVSS(before, at(row))
				}
				ADDQ(dst.stride, row)
			})
		}
		advance(4*states, dB, dC)
		ADDQ(U32(sumRows*chunk*s.Bytes()), sums.base)
	})
	End()
}
