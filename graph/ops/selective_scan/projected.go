package selective_scan

import (
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// mostProjected is the largest R that projectedSpec has kernels for.
const mostProjected = 512

// projectedSpec is CarrySpec for one token per row. It computes the time steps itself: dt = r
// dt_proj^T.
func projectedSpec(gated bool) *graph.Spec {
	s := CarrySpec(gated)
	plain := *s
	s.Name = name(gated, "_projected_carry")
	s.Signature = strings.Replace(plain.Signature, "dt[B T C]", "r:mm[B T R], dt_proj:mm[C R]", 1)
	s.Projected = nil
	s.Takes = func(d graph.Dims) bool { return d["T"] == 1 && d["R"] <= mostProjected }
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		r, w := in[1], in[2]
		dt := graph.NewArray(in[0].Shape)
		for i := range dt.Shape.Rows() {
			for c := range dt.Row(i) {
				for k, v := range r.Row(i) {
					dt.Row(i)[c] += v * w.Row(c)[k]
				}
			}
		}
		plain.Reference(d, append([]graph.Array{in[0], dt}, in[3:]...), out)
	}
	s.CPU = func(c *graph.CPUCall) func() {
		r, w, scan := c.In[1], c.In[2], *c
		dt := graph.Buffer{Rows: r.Rows, Cols: w.Rows, Stride: w.Rows, F32: c.Workspace[:r.Rows*w.Rows]}
		g := projection(c.Dims)
		g.LDA, g.LDB, g.LDC, g.RoundFactors = r.Stride, w.Stride, dt.Stride, c.RoundFactors
		rest := c.Workspace[len(dt.F32):]
		product := g.Bind(c.Pool, r.F32, w.F32, dt.F32, rest)
		scan.In = append([]graph.Buffer{c.In[0], dt}, c.In[3:]...)
		scan.Workspace = rest[g.WorkspaceEither(c.Pool.Workers()):]
		run := plain.CPU(&scan)
		return func() { product(); run() }
	}
	s.Workspace = func(d graph.Dims, workers int) int {
		return d["B"]*d["C"] + projection(d).WorkspaceEither(workers) + plain.Workspace(d, workers)
	}
	s.CUDA = &graph.CUDA{Source: source, Launches: form{gated: gated, carry: true}.projected}
	s.Cost = func(d graph.Dims) graph.Cost {
		c := carryCost(gated, d)
		products := 2 * float64(d["B"]*d["C"]*d["R"])
		c.FLOPs, c.Products = c.FLOPs+products, products
		c.Bytes += 4 * (float64(d["C"]*d["R"]) + float64(d["B"]*(d["R"]-d["C"])))
		return c
	}
	return s
}

// projected returns the launch of a kernel that computes the time steps itself.
func (f form) projected(c *graph.CUDACall) ([]graph.Launch, error) {
	r, w, scan := c.In[1], c.In[2], *c
	scan.In = append([]graph.DeviceBuffer{c.In[0], c.In[0]}, c.In[3:]...)
	o := f.addresses(&scan)
	const fewestRows, statesHeld, rankHeld = 5, 16, 192 // held in a thread's registers
	if d := c.Dims; byVectors(r, w) && d["B"] >= fewestRows && d["N"] <= statesHeld && d["R"] <= rankHeld {
		return []graph.Launch{f.stepRows(&scan, o, r, w)}, nil
	}
	l := f.step(&scan, o)
	width, lanes := 1, 32
	if byVectors(r, w) {
		width = 8
	}
	for lanes > 4 && lanes/2*width >= r.Cols {
		lanes /= 2
	}
	for name, n := range map[string]int{"RANK": r.Cols, "WIDTH": width, "LANES": lanes} {
		l.Defines[name] = strconv.Itoa(n)
	}
	l.Defines["R_T"], l.Defines["W_T"] = r.DType.CType(), w.DType.CType()
	l.Args = append(l.Args, r.Address, w.Address, uint64(r.Stride), uint64(w.Stride))
	return []graph.Launch{l}, nil
}

// byVectors reports whether the factors of dt can be read 8 elements at a time.
func byVectors(r, w graph.DeviceBuffer) bool {
	const width, bytes = 8, 16
	for _, b := range []graph.DeviceBuffer{r, w} {
		if b.DType != graph.BFloat16 || b.Cols%width != 0 || b.Stride%width != 0 || b.Address%bytes != 0 {
			return false
		}
	}
	return true
}

// stepRows launches step_rows.cu.
func (f form) stepRows(c *graph.CUDACall, o addresses, r, w graph.DeviceBuffer) graph.Launch {
	const rows = 8 // of a block
	d, y := c.Dims, c.Out[0]
	types := o.types()
	delete(types, "DT_T")
	macros := f.stepMacros("step_rows", d, y, types)
	macros["RANK"], macros["ROWS"] = strconv.Itoa(r.Cols), strconv.Itoa(rows)
	return graph.Launch{
		Kernel: "selective_scan_step_rows", Defines: macros,
		Grid: [3]int{ceilDiv(d["C"], 32), ceilDiv(d["B"], rows), 1}, Block: [3]int{32 * rows, 1, 1}, Early: true,
		Args: []any{o.u.Address, o.dtBias, o.aLog, o.bm.Address, o.cm.Address, o.skip, o.z.Address,
			c.In[len(c.In)-1].Address, y.Address, r.Address, w.Address, int32(d["B"]), int32(d["C"]),
			uint64(o.u.Stride), uint64(o.bm.Stride), uint64(o.cm.Stride), uint64(o.z.Stride), uint64(y.Stride), uint64(r.Stride), uint64(w.Stride)},
	}
}

// projection is the product that computes dt, without its leading dimensions.
func projection(d graph.Dims) simd.Gemm {
	return simd.Gemm{M: d["B"], N: d["C"], K: d["R"], TransB: true}
}
