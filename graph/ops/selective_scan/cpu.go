package selective_scan

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// A task is one row of the batch and a slice of the channels, through all tokens.
// Slices are cut for 16 workers on a single row, within bounds: each has its own
// part of dBm and dCm, which narrow slices make large beside the work, and wide ones
// leave workers idle.
const (
	wantSlices = 16
	minSlice   = 32
	maxSlice   = 96
	lanes      = 16
)

// slicing is how the channels are cut. It depends on their number alone, so that
// sums over channels don't depend on the number of workers or on the batch.
type slicing struct{ channels, width, n int }

func newSlicing(channels int) slicing {
	w := (channels + wantSlices - 1) / wantSlices
	w = min(max((w+lanes-1)/lanes*lanes, minSlice), maxSlice)
	return slicing{channels, w, (channels + w - 1) / w}
}

func (s slicing) of(i int) (c0, c1 int) { return i * s.width, min((i+1)*s.width, s.channels) }

// workspace hands out parts of a call's scratch. The workers' parts come first:
// their sizes keep to whole cache lines.
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

func forwardWorkspace(d graph.Dims, workers int) int {
	return workers*simd.ScanForwardScratch(newSlicing(d["C"]).width, d["N"]) + d["N"]*d["C"]
}

func forward(gated bool) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		saved := c.Out[1].F32
		return bindForward(c, gated, func(a *simd.ScanArgs, b int) {
			size := simd.ScanSavedSize(a.T, a.Channels, a.N)
			a.Saved = saved[b*size : (b+1)*size]
		})
	}
}

func forwardCarry(gated bool) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		h := c.In[len(c.In)-1].F32
		return bindForward(c, gated, func(a *simd.ScanArgs, b int) {
			size := a.N * a.Channels
			a.State = h[b*size : (b+1)*size]
		})
	}
}

// bindForward is the kernel of both forms. states adds to the operands of row b
// what becomes of its states.
func bindForward(c *graph.CPUCall, gated bool, states func(a *simd.ScanArgs, b int)) func() {
	cut := newSlicing(c.Dims["C"])
	w := workspace{c.Workspace}
	scratch := w.perWorker(c.Pool.Workers(), simd.ScanForwardScratch(cut.width, c.Dims["N"]))
	a := w.take(c.Dims["N"] * c.Dims["C"])
	args := make([]simd.ScanArgs, c.Dims["B"])
	for b := range args {
		args[b] = scanArgs(c, gated, b, a)
		args[b].Y = rowOf(c.Out[0], b, c.Dims["T"])
		states(&args[b], b)
	}
	rates := func(i, _ int) { decayRates(a, c.In[3], cut, i) }
	scan := func(i, worker int) {
		c0, c1 := cut.of(i % cut.n)
		simd.ScanForward(&args[i/cut.n], c0, c1, scratch[worker])
	}
	return func() {
		c.Pool.Run(cut.n, rates)
		c.Pool.Run(len(args)*cut.n, scan)
	}
}

// backwardWorkspace is the workers' scratch, A, each row's part of the parameters'
// gradients, and each slice's part of dBm and dCm.
func backwardWorkspace(d graph.Dims, workers int) int {
	cut, size := newSlicing(d["C"]), d["N"]*d["C"]
	return workers*simd.ScanBackwardScratch(cut.width, d["N"]) + size +
		d["B"]*(size+2*d["C"]) + 2*cut.n*d["B"]*d["T"]*d["N"]
}

func backward(gated bool) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		k := bindBackward(c, gated)
		rates := func(i, _ int) { decayRates(k.a, c.In[3], k.cut, i) }
		scan, sumRows, sumSlices := k.scan, k.sumRows, k.sumSlices
		return func() {
			c.Pool.Run(k.cut.n, rates)
			c.Pool.Run(len(k.args)*k.cut.n, scan)
			c.Pool.Run(k.cut.n, sumRows)
			c.Pool.Run(k.blocks(), sumSlices)
		}
	}
}

// backwardKernel is a backward call with its operands.
type backwardKernel struct {
	cut     slicing
	a       []float32 // [N C]
	args    []simd.ScanArgs
	grads   []simd.ScanGrads // of row b and slice s at [b*cut.n+s]
	scratch [][]float32
	// dbm and dcm are the slices' parts, each [B T N].
	dbm, dcm [][]float32
	out      []graph.Buffer
}

func bindBackward(c *graph.CPUCall, gated bool) *backwardKernel {
	rows, tokens, channels, states := c.Dims["B"], c.Dims["T"], c.Dims["C"], c.Dims["N"]
	size := states * channels
	k := &backwardKernel{cut: newSlicing(channels), out: c.Out}
	w := workspace{c.Workspace}
	k.scratch = w.perWorker(c.Pool.Workers(), simd.ScanBackwardScratch(k.cut.width, states))
	k.a = w.take(size)
	for range k.cut.n {
		k.dbm = append(k.dbm, w.take(rows*tokens*states))
		k.dcm = append(k.dcm, w.take(rows*tokens*states))
	}
	saved, dy := c.In[len(c.In)-2].F32, c.In[len(c.In)-1]
	for b := range rows {
		a := scanArgs(c, gated, b, k.a)
		n := simd.ScanSavedSize(tokens, channels, states)
		a.Saved = saved[b*n : (b+1)*n]
		k.args = append(k.args, a)
		g := simd.ScanGrads{
			DY: rowOf(dy, b, tokens), DU: rowOf(c.Out[0], b, tokens), DDt: rowOf(c.Out[1], b, tokens),
			DA: w.take(size), DD: w.take(channels), DDtBias: w.take(channels),
		}
		if gated {
			g.DZ = rowOf(c.Out[7], b, tokens)
		}
		for s := range k.cut.n {
			part := func(x []float32) simd.Rows {
				return simd.Rows{Data: x[b*tokens*states : (b+1)*tokens*states], Stride: states}
			}
			g.DB, g.DC = part(k.dbm[s]), part(k.dcm[s])
			k.grads = append(k.grads, g)
		}
	}
	return k
}

// scan computes one row and slice: its part of each sum starts from zero.
func (k *backwardKernel) scan(i, worker int) {
	a, g := &k.args[i/k.cut.n], &k.grads[i]
	c0, c1 := k.cut.of(i % k.cut.n)
	clear(g.DB.Data)
	clear(g.DC.Data)
	clear(g.DD[c0:c1])
	clear(g.DDtBias[c0:c1])
	for n := range a.N {
		clear(g.DA[n*a.Channels+c0 : n*a.Channels+c1])
	}
	simd.ScanBackward(a, g, c0, c1, k.scratch[worker])
}

// sumRows adds up the rows' parts of the parameters' gradients, in order, for one
// slice. Since A = -exp(A_log), dA_log is A dA.
func (k *backwardKernel) sumRows(i, _ int) {
	ddtBias, daLog, dd := k.out[2].F32, k.out[3], k.out[6].F32
	c0, c1 := k.cut.of(i)
	for c := c0; c < c1; c++ {
		row := daLog.Row(c)
		clear(row)
		ddtBias[c], dd[c] = 0, 0
		for b := range k.args {
			g := &k.grads[b*k.cut.n]
			ddtBias[c] += g.DDtBias[c]
			dd[c] += g.DD[c]
			for n := range row {
				row[n] += g.DA[n*k.cut.channels+c]
			}
		}
		for n := range row {
			row[n] *= k.a[n*k.cut.channels+c]
		}
	}
}

// blockTokens is how many tokens' dBm and dCm a task adds up.
const blockTokens = 64

func (k *backwardKernel) blocks() int { return (k.out[4].Rows + blockTokens - 1) / blockTokens }

// sumSlices adds up the slices' parts of dBm and dCm, in order, for one block of
// tokens.
func (k *backwardKernel) sumSlices(i, _ int) {
	from, to := i*blockTokens, min((i+1)*blockTokens, k.out[4].Rows)
	sumParts(k.out[4], k.dbm, from, to)
	sumParts(k.out[5], k.dcm, from, to)
}

// sumParts sets rows [from, to) of dst to the sum of the parts', which it uses up.
func sumParts(dst graph.Buffer, parts [][]float32, from, to int) {
	sum := parts[0][from*dst.Cols : to*dst.Cols]
	for _, p := range parts[1:] {
		simd.Add(sum, sum, p[from*dst.Cols:to*dst.Cols])
	}
	for r := from; r < to; r++ {
		copy(dst.Row(r), sum[(r-from)*dst.Cols:])
	}
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

// scanArgs are the operands of row b that both passes have, given A [N C].
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

// rowOf is row b of the batch.
func rowOf(x graph.Buffer, b, tokens int) simd.Rows {
	return simd.Rows{Data: x.F32[b*tokens*x.Stride:], Stride: x.Stride}
}
