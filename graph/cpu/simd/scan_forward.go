package simd

// ScanForwardScratch returns the number of elements of scratch that ScanForward needs for ranges of up to
// channels channels, at any Level.
func ScanForwardScratch(channels, n int) int {
	const (
		panels = 2 // A and h, [N][width]
		rows   = 2 // D and DtBias, [width]
		stages = 4 // u, dt, z and Y for an incomplete vector
	)
	return (panels*n+rows)*roundUp(channels, scanMaxLanes) + (scanForwardWork+stages)*ScanChunk*scanMaxLanes + scanAheadSize
}

// ScanForward computes channels [c0, c1) of Y, State and Saved. Calls on disjoint ranges may run
// concurrently, each with its own scratch.
func ScanForward(a *ScanArgs, c0, c1 int, scratch []float32) {
	a.check(c0, c1)
	a.Y.check("selective scan Y", a.T, a.Channels)
	if a.State != nil {
		checkSize("selective scan State", a.State, a.N*a.Channels)
	}
	if c0 == c1 {
		return
	}
	k := scan()
	arena := newScanArena(scratch, ScanForwardScratch(c1-c0, a.N))
	width := roundUp(c1-c0, k.lanes)
	decay, h := arena.panel(a.N, width), arena.panel(a.N, width)
	skip, bias := arena.panel(1, width), arena.panel(1, width)
	span := ScanChunk * k.lanes
	work := arena.take(scanForwardWork * span)
	uStage, dtStage, zStage, yStage := arena.take(span), arena.take(span), arena.take(span), arena.take(span)

	decay.gather(Rows{a.A, a.Channels}, a.N, c0, c1)
	skip.gather(Rows{a.D, a.Channels}, 1, c0, c1)
	bias.gather(Rows{a.DtBias, a.Channels}, 1, c0, c1)
	state := Rows{a.State, a.Channels}
	if a.State != nil {
		h.gather(state, a.N, c0, c1)
	} else {
		clear(h.data)
	}

	y := scanRow(work, k.lanes, scanY)
	ahead := arena.ahead()
	for t0 := 0; t0 < a.T; t0 += ScanChunk {
		steps := min(ScanChunk, a.T-t0)
		if a.Saved != nil {
			h.scatter(a.saved(t0/ScanChunk), a.N, c0, c1)
		}
		b, c := a.B.from(t0), a.C.from(t0)
		for col := 0; col < width; col += k.lanes {
			s := scanSpan{t0, steps, c0 + col, c1, k.lanes}
			u, dt := s.input(a.U, uStage), s.input(a.Dt, dtStage)
			k.delta(work, u.Data, u.Stride, dt.Data, dt.Stride, bias.from(col), skip.from(col), steps)
			next := ahead.of(t0+ScanChunk, a.T, c0+col, a.U, a.Dt, a.Z, a.Y)
			k.states(work, h.from(col), decay.from(col), width, b.Data, b.Stride, c.Data, c.Stride, steps, a.N, next)
			out := s.output(a.Y, yStage)
			if a.gated() {
				z := s.input(a.Z, zStage)
				k.gate(out.Data, out.Stride, y, k.lanes, z.Data, z.Stride, steps)
			} else {
				scanPanel{y, k.lanes}.scatter(out, steps, 0, k.lanes)
			}
			s.flush(a.Y, yStage)
		}
	}
	if a.State != nil {
		h.scatter(state, a.N, c0, c1)
	}
}
