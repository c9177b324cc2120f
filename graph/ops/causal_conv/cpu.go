package causal_conv

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// A task is one row of the batch and a slice of the channels, through all tokens. Slices are as
// wide as 16 workers allow: long rows are better for memory.
const (
	wantTasks = 16
	minSlice  = 32
	maxSlice  = 512
	lanes     = 16
)

// slicing is how the channels are divided. It depends only on the sizes, so that results don't
// depend on the number of workers.
type slicing struct{ channels, width, n int }

func newSlicing(rows, channels int) slicing {
	w := (rows*channels + wantTasks - 1) / wantTasks
	w = min(max((w+lanes-1)/lanes*lanes, minSlice), maxSlice)
	return slicing{channels, w, (channels + w - 1) / w}
}

func (s slicing) of(i int) (c0, c1 int) { return i * s.width, min((i+1)*s.width, s.channels) }

// forward is the kernel of both forms: the stateful one has a fourth input.
func forward(c *graph.CPUCall) func() {
	x, w, bias, y := c.In[0], c.In[1].F32, c.In[2].F32, c.Out[0]
	rows, tokens, taps := c.Dims["B"], c.Dims["T"], c.Dims["J"]
	cut := newSlicing(rows, x.Cols)
	args := make([]simd.ConvArgs, rows)
	for b := range args {
		args[b] = convArgs(c, b)
		args[b].Y = rowOf(y, b, tokens)
		if len(c.In) == 4 {
			size := (taps - 1) * x.Cols
			args[b].Tail = c.In[3].F32[b*size : (b+1)*size]
		}
	}
	task := func(i, _ int) {
		a := &args[i/cut.n]
		c0, c1 := cut.of(i % cut.n)
		simd.ConvSiLUForward(a, c0, c1)
		if a.Tail != nil {
			advance(a, c0, c1)
		}
	}
	return func() {
		simd.ConvTaps(c.Workspace, w, len(bias), taps)
		c.Pool.Run(rows*cut.n, task)
	}
}

// advance updates the tail of channels [c0, c1) to the last tokens of itself followed by X.
func advance(a *simd.ConvArgs, c0, c1 int) {
	kept := a.K - 1
	for p := range kept {
		dst := a.Tail[p*a.Channels+c0 : p*a.Channels+c1]
		if from := p + a.T; from < kept {
			copy(dst, a.Tail[from*a.Channels+c0:])
		} else {
			copy(dst, a.X.Data[(from-kept)*a.X.Stride+c0:])
		}
	}
}

// backwardWorkspace is the size of the taps, and of each row's part of dw, both [J C], and of dbias
// [C].
func backwardWorkspace(d graph.Dims, _ int) int {
	return d["C"] * (d["J"] + d["B"]*(d["J"]+1))
}

func backward(c *graph.CPUCall) func() {
	x, w, dy, dx, dw, dbias := c.In[0], c.In[1].F32, c.In[3], c.Out[0], c.Out[1].F32, c.Out[2].F32
	rows, tokens, taps := c.Dims["B"], c.Dims["T"], c.Dims["J"]
	cut := newSlicing(rows, x.Cols)
	args, grads := make([]simd.ConvArgs, rows), make([]simd.ConvGrads, rows)
	free := c.Workspace[taps*x.Cols:]
	for b := range args {
		args[b] = convArgs(c, b)
		grads[b] = simd.ConvGrads{
			DY: rowOf(dy, b, tokens), DX: rowOf(dx, b, tokens),
			DW: free[:taps*x.Cols], DBias: free[taps*x.Cols : (taps+1)*x.Cols],
		}
		free = free[(taps+1)*x.Cols:]
	}
	row := func(i, _ int) {
		g := &grads[i/cut.n]
		c0, c1 := cut.of(i % cut.n)
		for j := range taps {
			clear(g.DW[j*x.Cols+c0 : j*x.Cols+c1])
		}
		clear(g.DBias[c0:c1])
		simd.ConvSiLUBackward(&args[i/cut.n], g, c0, c1)
	}
	return func() {
		simd.ConvTaps(c.Workspace[:taps*x.Cols], w, x.Cols, taps)
		c.Pool.Run(rows*cut.n, row)
		clear(dw)
		clear(dbias)
		for b := range grads {
			simd.ConvTapsGrad(dw, grads[b].DW, x.Cols, taps)
			simd.Add(dbias, dbias, grads[b].DBias)
		}
	}
}

// convArgs are the operands of row b that both passes share. The transposed taps are at the start
// of the workspace.
func convArgs(c *graph.CPUCall, b int) simd.ConvArgs {
	channels, taps := c.In[0].Cols, c.Dims["J"]
	return simd.ConvArgs{
		T: c.Dims["T"], Channels: channels, K: taps,
		X: rowOf(c.In[0], b, c.Dims["T"]), W: c.Workspace[:taps*channels], Bias: c.In[2].F32,
	}
}

// rowOf is row b of the batch, [T C].
func rowOf(x graph.Buffer, b, tokens int) simd.Rows {
	return simd.Rows{Data: x.F32[b*tokens*x.Stride:], Stride: x.Stride}
}
