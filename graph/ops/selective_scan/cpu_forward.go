package selective_scan

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

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

// bindForward makes the kernel of both forms. states sets, in the operands of row b, where the
// row's states go.
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
