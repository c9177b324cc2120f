package simd

// ScanBackwardScratch returns the number of elements of scratch that ScanBackward needs for ranges of up
// to channels channels, at any Level.
func ScanBackwardScratch(channels, n int) int {
	const (
		panels = 4 // A, its gradient, the chunk's first h and the gradient of its last, [N][width]
		rows   = 4 // D, DtBias and their gradients, [width]
		stages = 7 // u, dt, z, DY, DU, DDt and DZ for an incomplete vector
		sums   = 2 // products whose lanes add up to dB and dC, for each state
	)
	return (panels*n+rows)*roundUp(channels, scanMaxLanes) +
		(scanBackwardWork+stages+sums*n)*ScanChunk*scanMaxLanes + scanAheadSize
}

// ScanBackward computes the gradients of channels [c0, c1) from the states in Saved. Y and State
// are not read. Calls on disjoint ranges may run concurrently if each has its own scratch, DB and
// DC; the latter are sums over channels, and adding the ranges' parts in a fixed order gives the
// same bits for any number of workers.
func ScanBackward(a *ScanArgs, g *ScanGrads, c0, c1 int, scratch []float32) {
	a.check(c0, c1)
	g.check(a)
	if c0 == c1 {
		return
	}
	s := newScanGradient(a, g, c0, c1, scratch)
	for chunk := (a.T - 1) / ScanChunk; chunk >= 0 && a.T > 0; chunk-- {
		t0 := chunk * ScanChunk
		steps := min(ScanChunk, a.T-t0)
		s.h.gather(a.saved(chunk), a.N, c0, c1)
		clear(s.sums)
		for column := 0; column < s.width; column += s.k.lanes {
			s.span(scanSpan{t0, steps, c0 + column, c1, s.k.lanes}, column)
		}
		db, dc := g.DB.from(t0), g.DC.from(t0)
		s.k.addLanes(db.Data, db.Stride, dc.Data, dc.Stride, s.sums, steps, a.N)
	}
	s.dDecay.addTo(Rows{g.DA, a.Channels}, a.N, c0, c1)
	s.dSkip.addTo(Rows{g.DD, a.Channels}, 1, c0, c1)
	s.dBias.addTo(Rows{g.DDtBias, a.Channels}, 1, c0, c1)
}

// scanGradient is what ScanBackward has in its scratch memory.
type scanGradient struct {
	a     *ScanArgs
	g     *ScanGrads
	k     *scanKernels
	width int // channels, in whole vectors

	decay, dDecay, h, dh     scanPanel // [N][width]
	skip, bias, dSkip, dBias scanPanel // [width]
	work, sums               []float32
	uIn, dtIn, zIn, dyIn     []float32 // of an incomplete vector
	duOut, ddtOut, dzOut     []float32
	ahead                    scanAhead
	gy, states               []float32 // parts of work
}

func newScanGradient(a *ScanArgs, g *ScanGrads, c0, c1 int, scratch []float32) scanGradient {
	s := scanGradient{a: a, g: g, k: scan()}
	arena := newScanArena(scratch, ScanBackwardScratch(c1-c0, a.N))
	s.width = roundUp(c1-c0, s.k.lanes)
	s.decay, s.dDecay = arena.panel(a.N, s.width), arena.panel(a.N, s.width)
	s.h, s.dh = arena.panel(a.N, s.width), arena.panel(a.N, s.width)
	s.skip, s.bias = arena.panel(1, s.width), arena.panel(1, s.width)
	s.dSkip, s.dBias = arena.panel(1, s.width), arena.panel(1, s.width)
	span := ScanChunk * s.k.lanes
	s.work, s.sums = arena.take(scanBackwardWork*span), arena.take(s.k.sumRows(a.N)*span)
	s.uIn, s.dtIn, s.zIn, s.dyIn = arena.take(span), arena.take(span), arena.take(span), arena.take(span)
	s.duOut, s.ddtOut, s.dzOut = arena.take(span), arena.take(span), arena.take(span)
	s.ahead = arena.ahead()
	s.gy, s.states = scanRow(s.work, s.k.lanes, scanGY), s.work[scanS*span:scanHistory*span]

	s.decay.gather(Rows{a.A, a.Channels}, a.N, c0, c1)
	s.skip.gather(Rows{a.D, a.Channels}, 1, c0, c1)
	s.bias.gather(Rows{a.DtBias, a.Channels}, 1, c0, c1)
	for _, p := range [...]scanPanel{s.dDecay, s.dh, s.dSkip, s.dBias} {
		clear(p.data)
	}
	return s
}

// span computes the gradients of one vector of channels, which begin at column of the range, in one
// chunk.
func (s *scanGradient) span(at scanSpan, column int) {
	a, g, k, steps := s.a, s.g, s.k, at.steps
	u, dt, dy := at.input(a.U, s.uIn), at.input(a.Dt, s.dtIn), at.input(g.DY, s.dyIn)
	var z Rows
	k.delta(s.work, u.Data, u.Stride, dt.Data, dt.Stride, s.bias.from(column), s.skip.from(column), steps)
	if a.gated() {
		z = at.input(a.Z, s.zIn)
		k.gate(s.gy, k.lanes, dy.Data, dy.Stride, z.Data, z.Stride, steps)
	} else {
		scanPanel{s.gy, k.lanes}.gather(dy, steps, 0, k.lanes)
	}
	clear(s.states)
	b, c := a.B.from(at.t0), a.C.from(at.t0)
	next := s.ahead.of(at.t0-ScanChunk, a.T, at.c, a.U, a.Dt, a.Z, g.DY, g.DU, g.DDt, g.DZ)
	k.statesGrad(s.work, s.sums, s.dDecay.from(column), s.dh.from(column), s.h.from(column), s.decay.from(column), s.width,
		b.Data, b.Stride, c.Data, c.Stride, steps, a.N, next)
	if a.gated() {
		dz := at.output(g.DZ, s.dzOut)
		k.gateGrad(dz.Data, dz.Stride, s.work, dy.Data, dy.Stride, z.Data, z.Stride, steps)
		at.flush(g.DZ, s.dzOut)
	}
	du, ddt := at.output(g.DU, s.duOut), at.output(g.DDt, s.ddtOut)
	k.deltaGrad(du.Data, du.Stride, ddt.Data, ddt.Stride, s.dBias.from(column), s.dSkip.from(column),
		s.work, u.Data, u.Stride, s.skip.from(column), steps)
	at.flush(g.DU, s.duOut)
	at.flush(g.DDt, s.ddtOut)
}

func (g *ScanGrads) check(a *ScanArgs) {
	checkSize("selective scan Saved", a.Saved, ScanSavedSize(a.T, a.Channels, a.N))
	g.DY.check("selective scan DY", a.T, a.Channels)
	g.DU.check("selective scan DU", a.T, a.Channels)
	g.DDt.check("selective scan DDt", a.T, a.Channels)
	if a.gated() {
		g.DZ.check("selective scan DZ", a.T, a.Channels)
	}
	g.DB.check("selective scan DB", a.T, a.N)
	g.DC.check("selective scan DC", a.T, a.N)
	checkSize("selective scan DA", g.DA, a.N*a.Channels)
	checkSize("selective scan DD", g.DD, a.Channels)
	checkSize("selective scan DDtBias", g.DDtBias, a.Channels)
}
