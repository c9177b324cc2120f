// Package linear is the matrix product with a weight, without a bias.
package linear

import "github.com/sambatrain/sambatrain/graph"

// Apply is x [B T K] times the transpose of w [M K], the layout of a Linear's weight in PyTorch: y
// [B T M].
func Apply(b *graph.Builder, x, w graph.Tensor) graph.Tensor { return b.Apply(Spec(), x, w) }

// Spec is y = x w^T.
func Spec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear",
		Signature: "x:mm[B T K], w:mm[M K] -> y[B T M]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x, w, y := in[0], in[1], out[0]
			for i := range y.Shape.Rows() {
				for m := range y.Shape.Cols() {
					for k, v := range x.Row(i) {
						y.Row(i)[m] += v * w.Row(m)[k]
					}
				}
			}
		},
		CPU:       forward,
		CUDA:      forwardCUDA,
		Added:     addSpec,
		Stacks:    true,
		Normed:    normedSpec,
		Workspace: forwardWorkspace,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			x, w, dy := g.In[0], g.In[1], g.DOut
			return []graph.Tensor{
				g.Builder().Apply(dxSpec(), dy, w),
				g.Builder().Apply(dwSpec(), dy, x),
			}
		},
		Cost: cost,
	}
}

// ApplyPrecise is Apply with a result that is float32 in any precision, and without a gradient. It is
// for logits, many of which would become equal if they were rounded to bfloat16.
func ApplyPrecise(b *graph.Builder, x, w graph.Tensor) graph.Tensor {
	return b.Apply(preciseSpec(), x, w)
}

func preciseSpec() *graph.Spec {
	s := Spec()
	s.Name, s.Signature = "linear_precise", "x:mm[B T K], w:mm[M K] -> y:f32[B T M]"
	s.Added, s.Stacks, s.Gradient, s.Normed = nil, false, nil, normedPreciseSpec
	return s
}

// addSpec is y = x w^T + z: a sublayer's last product, which adds the stream.
func addSpec() *graph.Spec {
	product := Spec().Reference
	return &graph.Spec{
		Name:      "linear_add",
		Signature: "x:mm[B T K], w:mm[M K], z[B T M] -> y[B T M]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			product(d, in[:2], out)
			addTo(out[0], in[2])
		},
		CPU:       forwardAdd,
		CUDA:      forwardAddCUDA,
		Workspace: forwardWorkspace,
		Promote:   true,
		InPlace:   []int{2},
		Cost:      costAdd("B", "T", "M"),
	}
}

func addTo(y, z graph.Array) {
	for i, v := range z.Data {
		y.Data[i] += v
	}
}

// dxSpec is dx = dy w.
func dxSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_dx",
		Signature: "dy:mm[B T M], w:mm[M K] -> dx[B T K]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			dy, w, dx := in[0], in[1], out[0]
			for i := range dx.Shape.Rows() {
				for m, g := range dy.Row(i) {
					for k, v := range w.Row(m) {
						dx.Row(i)[k] += g * v
					}
				}
			}
		},
		CPU:       dx,
		CUDA:      products(dxProduct),
		Added:     dxAddSpec,
		Pulls:     true,
		Workspace: dxWorkspace,
		Cost:      cost,
	}
}

// dxAddSpec is dx = dy w + z: the gradient of the tensor that gate and up, or q, k and v, share.
func dxAddSpec() *graph.Spec {
	product := dxSpec().Reference
	return &graph.Spec{
		Name:      "linear_dx_add",
		Signature: "dy:mm[B T M], w:mm[M K], z[B T K] -> dx[B T K]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			product(d, in[:2], out)
			addTo(out[0], in[2])
		},
		CPU:       dxAdd,
		CUDA:      products(added(dxProduct)),
		Merged:    dxSpec,
		Workspace: dxWorkspace,
		InPlace:   []int{2},
		Cost:      costAdd("B", "T", "K"),
	}
}

// dwSpec is dw = dy^T x.
func dwSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_dw",
		Signature: "dy:mm[B T M], x:mm[B T K] -> dw:f32[M K]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			dy, x, dw := in[0], in[1], out[0]
			for i := range x.Shape.Rows() {
				for m, g := range dy.Row(i) {
					for k, v := range x.Row(i) {
						dw.Row(m)[k] += g * v
					}
				}
			}
		},
		CPU:       dw,
		CUDA:      products(dwProduct),
		Added:     dwAddSpec,
		Workspace: dwWorkspace,
		Cost:      cost,
	}
}

// dwAddSpec is dw = dy^T x + z: the gradients of micro-batches, summed.
func dwAddSpec() *graph.Spec {
	product := dwSpec().Reference
	return &graph.Spec{
		Name:      "linear_dw_add",
		Signature: "dy:mm[B T M], x:mm[B T K], z:f32[M K] -> dw:f32[M K]",
		Reference: func(d graph.Dims, in, out []graph.Array) {
			product(d, in[:2], out)
			addTo(out[0], in[2])
		},
		CPU:       dwAdd,
		CUDA:      products(added(dwProduct)),
		Workspace: dwWorkspace,
		InPlace:   []int{2},
		Cost:      costAdd("M", "K"),
	}
}

// cost is the same for all three products: each reads two of the matrices and
// writes the third.
func cost(d graph.Dims) graph.Cost {
	n, m, k := float64(d["B"]*d["T"]), float64(d["M"]), float64(d["K"])
	return graph.Cost{FLOPs: 2 * n * m * k, Products: 2 * n * m * k, Bytes: 4 * (n*k + m*k + n*m)}
}

// costAdd is cost with the addition of a tensor of the given sizes.
func costAdd(sizes ...string) func(graph.Dims) graph.Cost {
	return func(d graph.Dims) graph.Cost {
		c, n := cost(d), 1.0
		for _, s := range sizes {
			n *= float64(d[s])
		}
		c.FLOPs, c.Bytes = c.FLOPs+n, c.Bytes+4*n
		return c
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	return append(fewRowsCases(), []graph.Case{
		{Name: "small", Spec: Spec(), Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
		{Name: "odd", Spec: Spec(), Dims: graph.Dims{"B": 3, "T": 7, "M": 19, "K": 37}},
		{Name: "one token", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1, "M": 33, "K": 70}},
		{Name: "x_proj", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 64, "M": 40, "K": 96}},
		{Name: "dt_proj", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 64, "M": 96, "K": 8}},
		{Name: "stream small", Spec: addSpec(), Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
		{Name: "stream odd", Spec: addSpec(), Dims: graph.Dims{"B": 3, "T": 37, "M": 19, "K": 37}},
		{Name: "added small", Spec: dxAddSpec(), Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
		{Name: "added odd", Spec: dxAddSpec(), Dims: graph.Dims{"B": 3, "T": 37, "M": 19, "K": 37}},
		{Name: "summed small", Spec: dwAddSpec(), Dims: graph.Dims{"B": 2, "T": 5, "M": 8, "K": 16}},
		{Name: "summed odd", Spec: dwAddSpec(), Dims: graph.Dims{"B": 3, "T": 37, "M": 19, "K": 37}},
		{Name: "scores", Spec: preciseSpec(), Dims: graph.Dims{"B": 19, "T": 1, "M": 33, "K": 70}},
		{Name: "421m gate", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 1024, "M": 4096, "K": 1536}, Bench: true},
		{Name: "421m x_proj", Spec: Spec(), Dims: graph.Dims{"B": 1, "T": 4096, "M": 128, "K": 3072}, Bench: true},
	}...)
}
