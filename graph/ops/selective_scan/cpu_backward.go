package selective_scan

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// backwardWorkspace has room for the workers' scratch, A, each row's partial parameter gradients,
// and each slice's partial dBm and dCm.
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
	// dbm and dcm are the slices' partial sums, each [B T N].
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

// scan computes one row and slice. Its partial sums start from zero.
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

// sumRows adds up the rows' partial parameter gradients, in order, for one slice. Since A =
// -exp(A_log), dA_log is A dA.
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

// blockTokens is the number of tokens whose dBm and dCm one task sums.
const blockTokens = 64

func (k *backwardKernel) blocks() int { return (k.out[4].Rows + blockTokens - 1) / blockTokens }

// sumSlices adds up the slices' partial dBm and dCm, in order, for one block of tokens.
func (k *backwardKernel) sumSlices(i, _ int) {
	from, to := i*blockTokens, min((i+1)*blockTokens, k.out[4].Rows)
	sumParts(k.out[4], k.dbm, from, to)
	sumParts(k.out[5], k.dcm, from, to)
}

// sumParts sets rows [from, to) of dst to the sum of the parts. It overwrites parts[0].
func sumParts(dst graph.Buffer, parts [][]float32, from, to int) {
	sum := parts[0][from*dst.Cols : to*dst.Cols]
	for _, p := range parts[1:] {
		simd.Add(sum, sum, p[from*dst.Cols:to*dst.Cols])
	}
	for r := from; r < to; r++ {
		copy(dst.Row(r), sum[(r-from)*dst.Cols:])
	}
}
