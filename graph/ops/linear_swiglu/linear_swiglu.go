// Package linear_swiglu is an MLP's products fused with the gated activation between them, and the
// gradient.
package linear_swiglu

import (
	"math"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is silu(x gate^T) * (x up^T), for x [B T K] and weights gate and up [M K]: [B T M].
func Apply(b *graph.Builder, x, gate, up graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), x, gate, up)
}

// Spec is y = silu(x gate^T) * (x up^T) with silu(x) = x sigmoid(x). It has no gradient.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_swiglu",
		Signature: "x:mm[B T K], gate:mm[M K], up:mm[M K] -> y[B T M]",
		Reference: func(_ graph.Dims, in, out []graph.Array) { reference(in, out[0], func(_, _ int, _, _ float64) {}) },
		CPU:       forward,
		Workspace: workspace,
		CUDA:      &graph.CUDA{Source: source, Launches: launches, Workspace: workspaceOf(2)},
		Takes:     takes(minDepth),
		Cost:      cost(0),
	}
}

// SpecOf is Spec, or KeptSpec.
func SpecOf(kept bool) *graph.Spec {
	if kept {
		return KeptSpec()
	}
	return Spec()
}

// KeptSpec is Spec that also returns the results of the products, for BackwardSpec. A plan uses it
// instead of two linear ops and a swiglu.
func KeptSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_swiglu_kept",
		Signature: "x:mm[B T K], gate:mm[M K], up:mm[M K] -> y[B T M], g[B T M], u[B T M]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			reference(in, out[0], func(i, m int, g, u float64) { out[1].Row(i)[m], out[2].Row(i)[m] = g, u })
		},
		CPU:       keptForward,
		Workspace: keptWorkspace,
		CUDA:      &graph.CUDA{Source: source, Launches: keptLaunches},
		Takes:     takes(minDepth),
		Cost:      cost(2),
	}
}

// reference computes y, and passes the results of both products to keep.
func reference(in []graph.Array, y graph.Array, keep func(i, m int, g, u float64)) {
	x, gate, up := in[0], in[1], in[2]
	for i := range y.Shape.Rows() {
		for m := range y.Shape.Cols() {
			g, u := dot(x.Row(i), gate.Row(m)), dot(x.Row(i), up.Row(m))
			keep(i, m, g, u)
			y.Row(i)[m] = g * sigmoid(g) * u
		}
	}
}

func dot(a, b []float64) (sum float64) {
	for k, v := range a {
		sum += v * b[k]
	}
	return sum
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// takes leaves small sizes to separate ops.
func takes(least int) func(d graph.Dims) bool {
	return func(d graph.Dims) bool { return d["B"]*d["T"] >= minRows && d["K"] >= least }
}

// cost is that of two products and y, with some more tensors written.
func cost(kept float64) func(d graph.Dims) graph.Cost {
	return func(d graph.Dims) graph.Cost {
		n, m, k := float64(d["B"]*d["T"]), float64(d["M"]), float64(d["K"])
		return graph.Cost{FLOPs: 4*n*m*k + (4+graph.ExpFLOPs)*n*m, Products: 4 * n * m * k, Bytes: 4 * (n*k + 2*m*k + (1+kept)*n*m)}
	}
}

// BackwardSpec is, with dy = dz down of the MLP's third product z = y down^T and s = sigmoid(g),
//
//	dg = dy * u * (s + g s (1-s))
//	du = dy * g s
//
// A plan uses it instead of a linear_dx and a swiglu_backward.
func BackwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_swiglu_backward",
		Signature: "dz:mm[B T K], down:mm[K M], g[B T M], u[B T M] -> dg[B T M], du[B T M]",
		InPlace:   []int{2, 3},
		Over:      []int{2, 3},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			dz, down, gate, up := in[0], in[1], in[2], in[3]
			for i := range gate.Shape.Rows() {
				dy := make([]float64, gate.Shape.Cols())
				for k, v := range dz.Row(i) {
					for m, w := range down.Row(k) {
						dy[m] += v * w
					}
				}
				for m, g := range gate.Row(i) {
					s := sigmoid(g)
					out[0].Row(i)[m] = dy[m] * up.Row(i)[m] * (s + g*s*(1-s))
					out[1].Row(i)[m] = dy[m] * g * s
				}
			}
		},
		CPU:       backward,
		Workspace: backwardWorkspace,
		CUDA:      &graph.CUDA{Source: source, Launches: backwardLaunches, Workspace: workspaceOf(1)},
		// Both gradients may be columns of one tensor: with other widths the rows of the second one
		// would not begin at multiples of 16 bytes.
		Takes: func(d graph.Dims) bool { return d["M"]%8 == 0 && takes(2*minDepth)(d) },
		Cost: func(d graph.Dims) graph.Cost {
			n, m, k := float64(d["B"]*d["T"]), float64(d["M"]), float64(d["K"])
			return graph.Cost{FLOPs: 2*n*m*k + (10+graph.ExpFLOPs)*n*m, Products: 2 * n * m * k, Bytes: 4 * (n*k + m*k + 4*n*m)}
		},
	}
}

// Cases are the ops' shapes under test.
func Cases() []graph.Case {
	var list []graph.Case
	for _, op := range []struct {
		spec  *graph.Spec
		depth int // from which on tiles.cu computes it
	}{{Spec(), minDepth}, {KeptSpec(), minDepth}, {BackwardSpec(), 2 * minDepth}} {
		for _, c := range []graph.Case{
			{Name: "small", Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
			{Name: "odd", Dims: graph.Dims{"B": 3, "T": 7, "M": 19, "K": 37}},
			{Name: "one token", Dims: graph.Dims{"B": 3, "T": 1, "M": 33, "K": 70}},
			{Name: "tiles", Dims: graph.Dims{"B": 2, "T": minRows / 2, "M": 2 * tile, "K": op.depth}},
			{Name: "parts of tiles", Dims: graph.Dims{"B": 1, "T": minRows + 44, "M": tile + 40, "K": op.depth + 24}},
			{Name: "parts of vectors", Dims: graph.Dims{"B": 1, "T": minRows, "M": 2*tile + 36, "K": op.depth}},
			{Name: "1.7b", Dims: graph.Dims{"B": 1, "T": 4096, "M": 8196, "K": 2048}, Bench: true},
		} {
			c.Name, c.Spec = strings.TrimPrefix(op.spec.Name, "linear_swiglu_")+" "+c.Name, op.spec
			list = append(list, c)
		}
	}
	return list
}
