package selective_scan

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// A task is one row of the batch and one slice of the channels, over all tokens. Slices are sized
// so that a single row makes work for 16 workers, within bounds: each slice has its own partial dBm
// and dCm, which are large relative to the work when slices are narrow, while wide slices leave
// workers idle.
const (
	wantSlices = 16
	minSlice   = 32
	maxSlice   = 96
	lanes      = 16
)

// slicing is how the channels are cut into slices. It depends only on the number of channels, so
// sums over channels don't depend on the number of workers or on the batch.
type slicing struct{ channels, width, n int }

func newSlicing(channels int) slicing {
	w := (channels + wantSlices - 1) / wantSlices
	w = min(max((w+lanes-1)/lanes*lanes, minSlice), maxSlice)
	return slicing{channels, w, (channels + w - 1) / w}
}

func (s slicing) of(i int) (c0, c1 int) { return i * s.width, min((i+1)*s.width, s.channels) }

// workspace hands out parts of a call's scratch memory. The per-worker parts come first: their
// sizes are multiples of a cache line.
type workspace struct{ free []float32 }

func (w *workspace) take(n int) []float32 {
	part := w.free[:n:n]
	w.free = w.free[n:]
	return part
}

func (w *workspace) perWorker(workers, n int) [][]float32 {
	parts := make([][]float32, workers)
	for i := range parts {
		parts[i] = w.take(n)
	}
	return parts
}

// decayRates sets a [N C] to A = -exp(A_log) for one slice of the channels.
func decayRates(a []float32, aLog graph.Buffer, cut slicing, slice int) {
	c0, c1 := cut.of(slice)
	for n := range aLog.Cols {
		row := a[n*cut.channels+c0 : n*cut.channels+c1]
		for i := range row {
			row[i] = aLog.F32[(c0+i)*aLog.Stride+n]
		}
		simd.Exp(row, row)
		simd.Scale(row, -1, row)
	}
}

// scanArgs returns the operands of batch row b that both passes share, given A [N C].
func scanArgs(c *graph.CPUCall, gated bool, b int, a []float32) simd.ScanArgs {
	tokens := c.Dims["T"]
	args := simd.ScanArgs{
		T: tokens, Channels: c.Dims["C"], N: c.Dims["N"],
		U: rowOf(c.In[0], b, tokens), Dt: rowOf(c.In[1], b, tokens),
		B: rowOf(c.In[4], b, tokens), C: rowOf(c.In[5], b, tokens),
		A: a, D: c.In[6].F32, DtBias: c.In[2].F32,
	}
	if gated {
		args.Z = rowOf(c.In[7], b, tokens)
	}
	return args
}

// rowOf returns row b of the batch.
func rowOf(x graph.Buffer, b, tokens int) simd.Rows {
	return simd.Rows{Data: x.F32[b*tokens*x.Stride:], Stride: x.Stride}
}
