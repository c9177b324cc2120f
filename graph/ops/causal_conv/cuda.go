package causal_conv

import (
	_ "embed"
	"slices"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed causal_conv.cu
var source string

var (
	cudaForward = &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return []graph.Launch{launchForward(c, 0, 0)}, nil
	}}
	cudaCarry = &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		if c.Dims["T"] == 1 {
			return []graph.Launch{launchStep(c)}, nil
		}
		conv := launchForward(c, c.In[3].Address, 0)
		return []graph.Launch{conv, launchAdvance(c, conv.Defines)}, nil
	}}
	cudaForwardByDocument = &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return []graph.Launch{launchForward(c, 0, c.In[3].Address)}, nil
	}}
	cudaBackward = &graph.CUDA{Source: source, Workspace: partsBytes, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return launchBackward(c, 0), nil
	}}
	cudaBackwardByDocument = &graph.CUDA{Source: source, Workspace: partsBytes, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		return launchBackward(c, c.In[4].Address), nil
	}}
)

const (
	cudaThreads = 128
	cudaUnroll  = 4 // tokens that a thread has in flight; its runs are multiples of it
)

// runLength is the number of tokens that one thread walks through: the largest of [16, longest]
// that leaves enough threads to fill a large GPU. It depends only on the sizes, and so do the sums
// over runs.
func runLength(d graph.Dims, longest int) int {
	const enough, shortest, vector = 1 << 17, 16, 4
	run := longest
	for run > shortest && d["B"]*ceilDiv(d["T"], run)*ceilDiv(d["C"], vector) < enough {
		run /= 2
	}
	return run
}

// vector is the number of channels that a thread handles at once: at most `most`, 4 or 8, if all
// addresses permit accesses of so many elements or 16 bytes, and otherwise 1.
func vector(most int, buffers ...graph.DeviceBuffer) int {
	for v := most; v >= 4; v /= 2 {
		if !slices.ContainsFunc(buffers, func(b graph.DeviceBuffer) bool {
			size := b.DType.Size()
			access := min(v*size, 16)
			return b.Cols%v != 0 || b.Address%uint64(access) != 0 || b.Stride*size%access != 0
		}) {
			return v
		}
	}
	return 1
}

// defines are the macros of the source; starts is the address of the documents' starts, 0 for none,
// and types contains the operands by the name of their type.
func defines(d graph.Dims, v int, starts uint64, types map[string]graph.DeviceBuffer) map[string]string {
	m := map[string]string{"J": strconv.Itoa(d["J"]), "V": strconv.Itoa(v)}
	if starts != 0 {
		m["BY_DOCUMENT"] = "1"
	}
	for name, b := range types {
		m[name] = b.DType.CType()
		if b.DType == graph.BFloat16 {
			m["FAST"] = "1"
		}
	}
	return m
}

// launchForward takes the addresses of the tail and of the documents' starts, 0 for none.
func launchForward(c *graph.CUDACall, tail, starts uint64) graph.Launch {
	d, x, y := c.Dims, c.In[0], c.Out[0]
	most := 4
	if x.DType == graph.BFloat16 && y.DType == graph.BFloat16 {
		most = 8
	}
	v, run := vector(most, x, y), runLength(d, 64)
	return graph.Launch{
		Kernel: "causal_conv", Defines: defines(d, v, starts, map[string]graph.DeviceBuffer{"X_T": x, "Y_T": y}),
		Grid:  [3]int{ceilDiv(d["C"], v*cudaThreads), ceilDiv(d["T"], run), d["B"]},
		Block: [3]int{cudaThreads, 1, 1},
		Args: []any{x.Address, c.In[1].Address, c.In[2].Address, tail, starts, y.Address,
			int32(d["T"]), int32(d["C"]), int32(run), int32(x.Stride), int32(y.Stride)},
	}
}

func launchAdvance(c *graph.CUDACall, macros map[string]string) graph.Launch {
	d, x := c.Dims, c.In[0]
	return graph.Launch{
		Kernel: "causal_conv_advance", Defines: macros,
		Grid:  [3]int{ceilDiv(d["C"], cudaThreads), d["B"], 1},
		Block: [3]int{cudaThreads, 1, 1},
		Args:  []any{x.Address, c.In[3].Address, int32(d["T"]), int32(d["C"]), int32(x.Stride)},
	}
}

// launchStep is the kernel for one token of each row, as in decoding.
func launchStep(c *graph.CUDACall) graph.Launch {
	d, x, y := c.Dims, c.In[0], c.Out[0]
	return graph.Launch{
		Kernel: "causal_conv_step", Defines: defines(d, 1, 0, map[string]graph.DeviceBuffer{"X_T": x, "Y_T": y}),
		Grid:  [3]int{ceilDiv(d["C"], cudaThreads), d["B"], 1},
		Block: [3]int{cudaThreads, 1, 1}, Early: true,
		Args: []any{x.Address, c.In[1].Address, c.In[2].Address, c.In[3].Address, y.Address,
			int32(d["C"]), int32(x.Stride), int32(y.Stride)},
	}
}

// longestRun is large enough that the backward pass's partial sums are small compared with x, dy
// and dx.
const longestRun = 128

// parts is the number of runs, which each have partial sums of dw and dbias.
func parts(d graph.Dims) int { return d["B"] * ceilDiv(d["T"], runLength(d, longestRun)) }

func partsBytes(d graph.Dims) int { return 4 * parts(d) * (d["J"] + 1) * d["C"] }

func launchBackward(c *graph.CUDACall, starts uint64) []graph.Launch {
	d, x, dy, dx := c.Dims, c.In[0], c.In[3], c.Out[0]
	v, run := vector(4, x, dy, dx), runLength(d, longestRun)
	macros := defines(d, v, starts, map[string]graph.DeviceBuffer{"X_T": x, "DY_T": dy, "DX_T": dx})
	return []graph.Launch{{
		Kernel: "causal_conv_backward", Defines: macros,
		Grid:  [3]int{ceilDiv(d["C"], v*cudaThreads), ceilDiv(d["T"], run), d["B"]},
		Block: [3]int{cudaThreads, 1, 1},
		Args: []any{x.Address, c.In[1].Address, c.In[2].Address, dy.Address, starts, dx.Address, c.Workspace,
			int32(d["T"]), int32(d["C"]), int32(run), int32(x.Stride), int32(dy.Stride), int32(dx.Stride)},
	}, {
		Kernel: "causal_conv_sum", Defines: macros,
		Grid:  [3]int{ceilDiv((d["J"]+1)*d["C"], 32), 1, 1},
		Block: [3]int{256, 1, 1},
		Args:  []any{c.Workspace, c.Out[1].Address, c.Out[2].Address, int32(parts(d)), int32(d["C"])},
	}}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
