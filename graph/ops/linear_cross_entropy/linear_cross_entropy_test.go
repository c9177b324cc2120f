package linear_cross_entropy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/linear_cross_entropy"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLinearCrossEntropy(t *testing.T) { optest.Run(t, linear_cross_entropy.Cases()) }

// trained calls check for the cases of the op with gradients, with their inputs.
func trained(t *testing.T, check func(t *testing.T, r *graph.Resolved, in []graph.Array)) {
	for _, c := range linear_cross_entropy.Cases() {
		if c.Bench || c.Spec.Gradient == nil {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r, err := c.Spec.ResolveDims(c.Dims)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, optest.Draw(c, r))
		})
	}
}

func reference(r *graph.Resolved, in []graph.Array) []graph.Array {
	var out []graph.Array
	for _, o := range r.Out {
		out = append(out, graph.NewArray(o.Shape))
	}
	r.Spec.Reference(r.Dims, in, out)
	return out
}

func TestGradientIsTheLossDerivative(t *testing.T) {
	trained(t, func(t *testing.T, r *graph.Resolved, in []graph.Array) {
		const checked, h = 24, 1e-5
		out := reference(r, in)
		rng := rand.New(rand.NewPCG(3, 3))
		for k, x := range in[:2] {
			grad := out[2+k]
			for range checked {
				i := rng.IntN(len(x.Data))
				at := func(v float64) float64 {
					old := x.Data[i]
					x.Data[i] = v
					defer func() { x.Data[i] = old }()
					return reference(r, in)[0].Data[0]
				}
				want := (at(x.Data[i]+h) - at(x.Data[i]-h)) / (2 * h)
				if !(math.Abs(grad.Data[i]-want) <= 1e-8) {
					t.Fatalf("%s: element %d is %g, central differences give %g", r.Out[2+k].Name, i, grad.Data[i], want)
				}
			}
		}
	})
}

func TestGradientReachesParameters(t *testing.T) {
	trained(t, func(t *testing.T, r *graph.Resolved, in []graph.Array) {
		want := reference(r, in)
		b := graph.NewBuilder(add.Spec)
		x, w := b.Param("x", nil, in[0].Shape...), b.Param("w", nil, in[1].Shape...)
		args := []graph.Tensor{x, w}
		for i, o := range r.In[2:] {
			args = append(args, b.Input(o.Name, graph.Int32, in[2+i].Shape...))
		}
		loss := b.Apply(r.Spec, args...)
		b.Result("loss", loss)
		b.Result("nll", loss.Output(1))
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if len(plan.Steps) != 1 {
			t.Fatalf("a backward pass of its own:\n%v", plan)
		}
		dev, err := cpu.New(2)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		mem, err := dev.NewMemory(plan.Sizes)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := dev.Load(plan, mem)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range r.In[2:] {
			if err := prog.WriteInts(o.Name, int32s(in[2+i].Data)); err != nil {
				t.Fatal(err)
			}
		}
		for i, p := range plan.Params {
			if err := mem.Write(graph.Params, p.Offset, float32s(in[i].Data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := prog.Run(); err != nil {
			t.Fatal(err)
		}
		for k, name := range []string{"loss", "nll"} {
			got := make([]float32, len(want[k].Data))
			if err := prog.Read(name, got); err != nil {
				t.Fatal(err)
			}
			optest.Near(t, name, got, want[k].Data)
		}
		for i, p := range plan.Params {
			got := make([]float32, p.Shape.Size())
			if err := mem.Read(graph.Grads, p.Offset, got); err != nil {
				t.Fatal(err)
			}
			optest.Near(t, "d"+p.Name, got, want[2+i].Data)
		}
	})
}

func int32s(x []float64) []int32 {
	y := make([]int32, len(x))
	for i, v := range x {
		y[i] = int32(v)
	}
	return y
}

func float32s(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// TestPartsMakeTheWhole: the mean over parts with unequal numbers of targets is that of the whole,
// and if all parts have equally many, the bits of a part are those of the op that counts its own
// targets.
func TestPartsMakeTheWhole(t *testing.T) {
	const d, v, rows, cut = 5, 7, 6, 2
	rng := rand.New(rand.NewPCG(4, 4))
	x, w := make([]float32, rows*d), make([]float32, v*d)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for i := range w {
		w[i] = float32(rng.NormFloat64())
	}
	for _, c := range []struct {
		name    string
		targets []int32
		equal   bool
	}{
		{"unequal", []int32{1, -1, 6, 0, 3, 3}, false},
		{"none in a part", []int32{-1, -1, 6, 0, 3, -1}, false},
		{"none", []int32{-1, -1, -1, -1, -1, -1}, true},
		{"equal", []int32{2, -1, 6, -1, -1, 4}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			counted := int32(0)
			for _, id := range c.targets {
				if id >= 0 {
					counted++
				}
			}
			whole := run(linear_cross_entropy.Spec(), x, w, c.targets, nil)
			mean := make([][]float64, 2) // loss and dw
			const parts = rows / cut
			for i := range parts {
				part := run(linear_cross_entropy.PartSpec(), x[i*cut*d:(i+1)*cut*d], w, c.targets[i*cut:(i+1)*cut], []int32{counted, parts})
				if c.equal {
					own := run(linear_cross_entropy.Spec(), x[i*cut*d:(i+1)*cut*d], w, c.targets[i*cut:(i+1)*cut], nil)
					for k := range own {
						if !slices.Equal(own[k], part[k]) {
							t.Errorf("part %d, output %d: %v, on its own %v", i, k, part[k], own[k])
						}
					}
				}
				for k, y := range [][]float32{part[0], part[3]} {
					if mean[k] == nil {
						mean[k] = make([]float64, len(y))
					}
					for j, v := range y {
						mean[k][j] += float64(v) / parts
					}
				}
			}
			optest.Near(t, "loss", whole[0], mean[0])
			optest.Near(t, "dw", whole[3], mean[1])
		})
	}
}

// run runs the op on the CPU for rows of one token; count may be nil.
func run(spec *graph.Spec, x, w []float32, targets, count []int32) [][]float32 {
	t, d := len(targets), len(x)/len(targets)
	v := len(w) / d
	c := &graph.CPUCall{Dims: graph.Dims{"B": 1, "T": t, "V": v, "D": d}, Pool: simd.Serial{}}
	c.Workspace = make([]float32, spec.Workspace(c.Dims, 1))
	c.In = []graph.Buffer{{Rows: t, Cols: d, Stride: d, F32: x}, {Rows: v, Cols: d, Stride: d, F32: w}, {Rows: 1, Cols: t, Stride: t, I32: targets}}
	if count != nil {
		c.In = append(c.In, graph.Buffer{Rows: 1, Cols: 2, Stride: 2, I32: count})
	}
	out := [][]float32{make([]float32, 1), make([]float32, t), make([]float32, t*d), make([]float32, v*d)}
	for i, size := range [][2]int{{1, 1}, {1, t}, {t, d}, {v, d}} {
		c.Out = append(c.Out, graph.Buffer{Rows: size[0], Cols: size[1], Stride: size[1], F32: out[i]})
	}
	spec.CPU(c)()
	return out
}

func TestOnlyTheLossIsDifferentiated(t *testing.T) {
	b := graph.NewBuilder(add.Spec)
	loss := linear_cross_entropy.Apply(b, b.Param("x", nil, 1, 2, 3), b.Param("w", nil, 4, 3), b.Input("targets", graph.Int32, 1, 2))
	half := &graph.Spec{
		Name:      "half",
		Signature: "x[] -> y[]",
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(&graph.Spec{Name: "half_dx", Signature: "dy[] -> dx[]"}, g.DOut)}
		},
	}
	err := b.Gradients(b.Apply(half, loss))
	if err == nil || !strings.Contains(err.Error(), "only the gradient of the loss itself is known") {
		t.Errorf("error is %v", err)
	}
}

func TestTargetOutsideVocabulary(t *testing.T) {
	for _, spec := range []*graph.Spec{linear_cross_entropy.Spec(), linear_cross_entropy.EvalSpec()} {
		r, err := spec.ResolveDims(graph.Dims{"B": 1, "T": 2, "V": 4, "D": 1})
		if err != nil {
			t.Fatal(err)
		}
		in := []graph.Array{graph.NewArray(r.In[0].Shape), graph.NewArray(r.In[1].Shape), {Shape: r.In[2].Shape, Data: []float64{3, 4}}}
		panics(t, spec.Name+" reference", func() { reference(r, in) })
		c := &graph.CPUCall{Dims: r.Dims, Pool: simd.Serial{}, Workspace: make([]float32, spec.Workspace(r.Dims, 1))}
		for _, o := range append(r.In, r.Out...) {
			b := graph.Buffer{Rows: o.Shape.Rows(), Cols: o.Shape.Cols(), Stride: o.Shape.Cols()}
			switch {
			case o.DType == graph.Int32:
				b.I32 = []int32{3, 4}
			default:
				b.F32 = make([]float32, o.Shape.Size())
			}
			if len(c.In) < len(r.In) {
				c.In = append(c.In, b)
			} else {
				c.Out = append(c.Out, b)
			}
		}
		panics(t, spec.Name+" cpu", spec.CPU(c))
	}
}

func panics(t *testing.T, name string, f func()) {
	t.Helper()
	const want = "target 1 of the batch is id 4, outside the vocabulary of 4"
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
			t.Errorf("%s: panics with %q, want %q", name, got, want)
		}
	}()
	f()
}
