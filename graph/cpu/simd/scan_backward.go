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
	k := scan()
	arena := newScanArena(scratch, ScanBackwardScratch(c1-c0, a.N))
	width := roundUp(c1-c0, k.lanes)
	decay, dDecay := arena.panel(a.N, width), arena.panel(a.N, width)
	h, dh := arena.panel(a.N, width), arena.panel(a.N, width)
	skip, bias := arena.panel(1, width), arena.panel(1, width)
	dSkip, dBias := arena.panel(1, width), arena.panel(1, width)
	span := ScanChunk * k.lanes
	work, sums := arena.take(scanBackwardWork*span), arena.take(k.sumRows(a.N)*span)
	uStage, dtStage, zStage, dyStage := arena.take(span), arena.take(span), arena.take(span), arena.take(span)
	duStage, ddtStage, dzStage := arena.take(span), arena.take(span), arena.take(span)

	decay.gather(Rows{a.A, a.Channels}, a.N, c0, c1)
	skip.gather(Rows{a.D, a.Channels}, 1, c0, c1)
	bias.gather(Rows{a.DtBias, a.Channels}, 1, c0, c1)
	for _, p := range [...]scanPanel{dDecay, dh, dSkip, dBias} {
		clear(p.data)
	}

	ahead := arena.ahead()
	gy, sGrads := scanRow(work, k.lanes, scanGY), work[scanS*span:scanHistory*span]
	for chunk := (a.T - 1) / ScanChunk; chunk >= 0 && a.T > 0; chunk-- {
		t0 := chunk * ScanChunk
		steps := min(ScanChunk, a.T-t0)
		h.gather(a.saved(chunk), a.N, c0, c1)
		clear(sums)
		b, c := a.B.from(t0), a.C.from(t0)
		for col := 0; col < width; col += k.lanes {
			s := scanSpan{t0, steps, c0 + col, c1, k.lanes}
			u, dt, dy := s.input(a.U, uStage), s.input(a.Dt, dtStage), s.input(g.DY, dyStage)
			var z Rows
			k.delta(work, u.Data, u.Stride, dt.Data, dt.Stride, bias.from(col), skip.from(col), steps)
			if a.gated() {
				z = s.input(a.Z, zStage)
				k.gate(gy, k.lanes, dy.Data, dy.Stride, z.Data, z.Stride, steps)
			} else {
				scanPanel{gy, k.lanes}.gather(dy, steps, 0, k.lanes)
			}
			clear(sGrads)
			next := ahead.of(t0-ScanChunk, a.T, c0+col, a.U, a.Dt, a.Z, g.DY, g.DU, g.DDt, g.DZ)
			k.statesGrad(work, sums, dDecay.from(col), dh.from(col), h.from(col), decay.from(col), width,
				b.Data, b.Stride, c.Data, c.Stride, steps, a.N, next)
			if a.gated() {
				dz := s.output(g.DZ, dzStage)
				k.gateGrad(dz.Data, dz.Stride, work, dy.Data, dy.Stride, z.Data, z.Stride, steps)
				s.flush(g.DZ, dzStage)
			}
			du, ddt := s.output(g.DU, duStage), s.output(g.DDt, ddtStage)
			k.deltaGrad(du.Data, du.Stride, ddt.Data, ddt.Stride, dBias.from(col), dSkip.from(col),
				work, u.Data, u.Stride, skip.from(col), steps)
			s.flush(g.DU, duStage)
			s.flush(g.DDt, ddtStage)
		}
		db, dc := g.DB.from(t0), g.DC.from(t0)
		k.addLanes(db.Data, db.Stride, dc.Data, dc.Stride, sums, steps, a.N)
	}
	dDecay.addTo(Rows{g.DA, a.Channels}, a.N, c0, c1)
	dSkip.addTo(Rows{g.DD, a.Channels}, 1, c0, c1)
	dBias.addTo(Rows{g.DDtBias, a.Channels}, 1, c0, c1)
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
