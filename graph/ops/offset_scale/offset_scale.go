// Package offset_scale makes several vectors from one, each with its own scale and offset per
// channel: how gated attention units compute queries and keys from one projection (Hua et al.,
// arXiv 2202.10447; Mega, arXiv 2209.10655).
package offset_scale

import "github.com/sambatrain/sambatrain/graph"

// Apply makes H vectors from each vector of x [B T D], side by side: [B T H*D]. scale and offset
// are [H D].
func Apply(b *graph.Builder, x, scale, offset graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), x, scale, offset)
}

// Spec is y[t,h,c] = x[t,c] * scale[h,c] + offset[h,c].
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "offset_scale",
		Signature: "x[B T D], scale:f32[H D], offset:f32[H D] -> y[B T H*D]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			scale, offset := in[1].Data, in[2].Data
			for r := range in[0].Shape.Rows() {
				x, y := in[0].Row(r), out[0].Row(r)
				for i := range y {
					y[i] = x[i%d["D"]]*scale[i] + offset[i]
				}
			}
		},
		CPU:  forward,
		CUDA: &graph.CUDA{Source: source, Launches: cudaForward},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dx := g.Builder().Apply(backwardSpec(), g.In[0], g.In[1], g.DOut)
			return []graph.Tensor{dx, dx.Output(1), dx.Output(2)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			x := float64(d["B"] * d["T"] * d["D"])
			y := x * float64(d["H"])
			return graph.Cost{FLOPs: 2 * y, Bytes: 4 * (x + y)}
		},
	}
}

// backwardSpec is
//
//	dx[t,c]      = sum_h dy[t,h,c] * scale[h,c]
//	dscale[h,c]  = sum over rows and t of dy[t,h,c] * x[t,c]
//	doffset[h,c] = sum over rows and t of dy[t,h,c]
func backwardSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "offset_scale_backward",
		Signature: "x[B T D], scale:f32[H D], dy[B T H*D] -> dx[B T D], dscale:f32[H D], doffset:f32[H D]",
		InPlace:   []int{0},
		Reference: func(d graph.Dims, in, out []graph.Array) {
			scale, dscale, doffset := in[1].Data, out[1].Data, out[2].Data
			for r := range in[0].Shape.Rows() {
				x, dx := in[0].Row(r), out[0].Row(r)
				for i, dy := range in[2].Row(r) {
					dx[i%d["D"]] += dy * scale[i]
					dscale[i] += dy * x[i%d["D"]]
					doffset[i] += dy
				}
			}
		},
		CPU:       backward,
		CUDA:      &graph.CUDA{Source: source, Launches: cudaBackward, Workspace: backwardWorkspaceCUDA},
		Workspace: func(d graph.Dims, _ int) int { return blocks(d["B"]*d["T"]) * 2 * d["H"] * d["D"] },
		Cost: func(d graph.Dims) graph.Cost {
			x := float64(d["B"] * d["T"] * d["D"])
			y := x * float64(d["H"])
			return graph.Cost{FLOPs: 5 * y, Bytes: 4 * (2*x + y)}
		},
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return []graph.Case{
		{Name: "query and key", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "H": 2, "D": 16}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "H": 3, "D": 13}},
		{Name: "one channel", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "H": 1, "D": 1}},
		{Name: "many blocks", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 2*rowsPerBlock + 1, "H": 2, "D": 5}},
		{Name: "mega 422m", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "H": 2, "D": 128}, Bench: true},
	}
}
