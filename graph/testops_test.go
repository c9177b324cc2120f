package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/reference"
)

// The ops of this package's tests. All take activations [B T N].

// elementwise is y = f(inputs), one element at a time. mark is a graph.Kind's.
func elementwise(name string, inputs int, mark string, inPlace []int, f func(x []float64) float64) *graph.Spec {
	var in []string
	for i := range inputs {
		in = append(in, fmt.Sprintf("x%d%s[B T N]", i, mark))
	}
	return &graph.Spec{
		Name:      name,
		Signature: strings.Join(in, ", ") + " -> y[B T N]",
		InPlace:   inPlace,
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x := make([]float64, len(in))
			for e := range out[0].Data {
				for i := range in {
					x[i] = in[i].Data[e]
				}
				out[0].Data[e] = f(x)
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			x := make([]float64, len(c.In))
			return func() {
				y := c.Out[0]
				for r := range y.Rows {
					for j := range y.Cols {
						for i, in := range c.In {
							x[i] = float64(in.Row(r)[j])
						}
						y.Row(r)[j] = float32(f(x))
					}
				}
			}
		},
	}
}

// scale is y = a x.
func scale(a float64) *graph.Spec {
	s := elementwise("scale", 1, "", []int{0}, func(x []float64) float64 { return a * x[0] })
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		return []graph.Tensor{g.Builder().Apply(scale(a), g.DOut)}
	}
	return s
}

// mul is z = x y. Mixed precision treats it as a matrix product.
func mul() *graph.Spec {
	s := elementwise("mul", 2, ":mm", []int{0, 1}, func(x []float64) float64 { return x[0] * x[1] })
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		return []graph.Tensor{
			g.Builder().Apply(mul(), g.DOut, g.In[1]),
			g.Builder().Apply(mul(), g.DOut, g.In[0]),
		}
	}
	return s
}

// gate is z = x (1 + y) with one backward op, which can recompute z and overwrites what it reads.
func gate() *graph.Spec {
	s := elementwise("gate", 2, "", []int{0, 1}, func(x []float64) float64 { return x[0] * (1 + x[1]) })
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		dx := g.Builder().Apply(gateBackward(false), g.In[0], g.In[1], g.DOut)
		return []graph.Tensor{dx, dx.Output(1)}
	}
	return s
}

func gateBackward(again bool) *graph.Spec {
	s := &graph.Spec{
		Name:      "gate_backward",
		Signature: "x[B T N], y[B T N], dz[B T N] -> dx[B T N], dy[B T N]",
		InPlace:   []int{0, 1, 2},
		Over:      []int{0, 1},
		Again:     func() *graph.Spec { return gateBackward(true) },
		Forward:   "gate",
	}
	if again {
		s.Name, s.Signature = s.Name+"_again", s.Signature+", z[B T N]"
		s.InPlace, s.Over, s.Again = []int{0}, []int{0, 1, 2}, nil
	}
	s.Reference = func(_ graph.Dims, in, out []graph.Array) {
		for i, x := range in[0].Data {
			y, dz := in[1].Data[i], in[2].Data[i]
			out[0].Data[i], out[1].Data[i] = dz*(1+y), dz*x
			if again {
				out[2].Data[i] = x * (1 + y)
			}
		}
	}
	s.CPU = func(c *graph.CPUCall) func() {
		return func() {
			for r := range c.In[0].Rows {
				for j := range c.In[0].Cols {
					x, y, dz := c.In[0].Row(r)[j], c.In[1].Row(r)[j], c.In[2].Row(r)[j]
					c.Out[0].Row(r)[j], c.Out[1].Row(r)[j] = dz*(1+y), dz*x
					if again {
						c.Out[2].Row(r)[j] = x * (1 + y)
					}
				}
			}
		}
	}
	return s
}

// mirror reverses each row. It can't work in place.
func mirror() *graph.Spec {
	return &graph.Spec{
		Name:      "mirror",
		Signature: "x[B T N] -> y[B T N]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i := range in[0].Shape.Rows() {
				x, y := in[0].Row(i), out[0].Row(i)
				for j := range x {
					y[len(y)-1-j] = x[j]
				}
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				for i := range c.In[0].Rows {
					x, y := c.In[0].Row(i), c.Out[0].Row(i)
					for j := range y {
						y[j] = -1e9 // to detect working in place
					}
					for j := range x {
						y[len(y)-1-j] = x[j]
					}
				}
			}
		},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(mirror(), g.DOut)}
		},
	}
}

// square is y = x^2. Output 1 is 2x, saved for the backward op.
func square() *graph.Spec {
	return &graph.Spec{
		Name:      "square",
		Signature: "x[B T N] -> y[B T N], slope:f32[B T N]",
		InPlace:   []int{0},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				out[0].Data[i], out[1].Data[i] = x*x, 2*x
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				for i := range c.In[0].Rows {
					for j, x := range c.In[0].Row(i) {
						c.Out[0].Row(i)[j], c.Out[1].Row(i)[j] = x*x, 2*x
					}
				}
			}
		},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(mul(), g.DOut, g.Out[1])}
		},
	}
}

// total is the scalar sum over inputs i and elements e of weight(i, e) x_i[e].
func total(inputs int) *graph.Spec {
	var in []string
	for i := range inputs {
		in = append(in, fmt.Sprintf("x%d[B%d T%d N%d]", i, i, i, i))
	}
	return &graph.Spec{
		Name:      "total",
		Signature: strings.Join(in, ", ") + " -> s[]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i := range in {
				for e, x := range in[i].Data {
					out[0].Data[0] += weight(i, e) * x
				}
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				s := 0.0
				for i, x := range c.In {
					for r := range x.Rows {
						for j, v := range x.Row(r) {
							s += weight(i, r*x.Cols+j) * float64(v)
						}
					}
				}
				c.Out[0].F32[0] = float32(s)
			}
		},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			if !g.IsSeed() {
				return []graph.Tensor{g.Builder().Fail(fmt.Errorf("total: only a loss"))}
			}
			var list []graph.Tensor
			for i, x := range g.In {
				list = append(list, g.Builder().Apply(weights(i), x))
			}
			return list
		},
	}
}

// weights is the gradient of total for input i.
func weights(i int) *graph.Spec {
	return &graph.Spec{
		Name:      "weights",
		Signature: "x[B T N] -> dx[B T N]",
		Reference: func(_ graph.Dims, _, out []graph.Array) {
			for e := range out[0].Data {
				out[0].Data[e] = weight(i, e)
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				dx := c.Out[0]
				for r := range dx.Rows {
					for j := range dx.Cols {
						dx.Row(r)[j] = float32(weight(i, r*dx.Cols+j))
					}
				}
			}
		},
	}
}

func weight(i, e int) float64 { return float64((7*i+3*e)%11-5) / 4 }

// count adds x to a state and returns the new sum.
func count() *graph.Spec {
	return &graph.Spec{
		Name:      "count",
		Signature: "sum![B T N], x[B T N] -> y[B T N]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[1].Data {
				in[0].Data[i] += x
				out[0].Data[i] = in[0].Data[i]
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				for r := range c.In[1].Rows {
					for j, x := range c.In[1].Row(r) {
						c.In[0].Row(r)[j] += x
						c.Out[0].Row(r)[j] = c.In[0].Row(r)[j]
					}
				}
			}
		},
	}
}

func newBuilder() *graph.Builder { return graph.NewBuilder(add.Spec) }

func compile(t *testing.T, b *graph.Builder) *graph.Plan {
	t.Helper()
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wantError fails unless err is one line with all of the parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error is %q, want one with %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has several lines: %q", err)
	}
}

// steps are the names of a plan's calls.
func steps(p *graph.Plan) []string {
	var list []string
	for _, s := range p.Steps {
		list = append(list, s.Spec.Name)
	}
	return list
}

func paramSlot(p *graph.Plan, name string, r graph.Region) graph.Slot {
	for _, q := range p.Params {
		if q.Name == name {
			return graph.Slot{Region: r, Offset: q.Offset, Rows: q.Shape.Rows(), Cols: q.Shape.Cols(), Stride: q.Shape.Cols(), Shape: q.Shape}
		}
	}
	panic("no parameter " + name)
}

// machines runs one plan on the reference and on the CPU.
type machines struct {
	t    *testing.T
	plan *graph.Plan
	ref  *reference.Memory
	mem  graph.Memory
	prog graph.Program
}

func load(t *testing.T, p *graph.Plan) *machines {
	t.Helper()
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	m := &machines{t: t, plan: p, ref: reference.NewMemory(p)}
	if m.mem, err = dev.NewMemory(p.Sizes); err != nil {
		t.Fatal(err)
	}
	if m.prog, err = dev.Load(p, m.mem); err != nil {
		t.Fatal(err)
	}
	// To detect reads before writes.
	for i := range m.ref[graph.Arena] {
		m.ref[graph.Arena][i] = nan
	}
	return m
}

func (m *machines) param(name string, x []float64) {
	m.t.Helper()
	s := paramSlot(m.plan, name, graph.Params)
	m.ref.Write(s, x)
	if err := m.mem.Write(s.Region, s.Offset, float32s(x)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machines) input(name string, x []float64) {
	m.t.Helper()
	m.ref.Write(m.plan.Inputs[name], x)
	if err := m.prog.WriteFloats(name, float32s(x)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machines) run() {
	m.t.Helper()
	if err := m.ref.Run(m.plan); err != nil {
		m.t.Fatal(err)
	}
	if err := m.prog.Run(); err != nil {
		m.t.Fatal(err)
	}
}

// result compares a result on both machines with want.
func (m *machines) result(name string, want []float64) {
	m.t.Helper()
	slot, ok := m.plan.Results[name]
	if !ok {
		m.t.Fatalf("the plan has no result %s", name)
	}
	near(m.t, "reference: result "+name, m.ref.Read(slot).Data, want, 1e-12)
	got := make([]float32, len(want))
	if err := m.prog.Read(name, got); err != nil {
		m.t.Fatal(err)
	}
	near(m.t, "cpu: result "+name, float64s(got), want, 1e-4)
}

// gradient compares a parameter's gradient on both machines with want.
func (m *machines) gradient(name string, want []float64) {
	m.t.Helper()
	s := paramSlot(m.plan, name, graph.Grads)
	near(m.t, "reference: gradient of "+name, m.ref.Read(s).Data, want, 1e-12)
	got := make([]float32, len(want))
	if err := m.mem.Read(s.Region, s.Offset, got); err != nil {
		m.t.Fatal(err)
	}
	near(m.t, "cpu: gradient of "+name, float64s(got), want, 1e-4)
}
