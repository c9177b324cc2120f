// Package optest is the one test harness of all ops. For each case of an op it
// checks that
//
//   - inputs of a wrong rank are refused;
//   - the CPU kernel agrees with the float64 reference, on every instruction set
//     that the machine has, with dense and with strided rows, writes every element
//     of its outputs and nothing beside them, and leaves its inputs alone;
//   - the same bits come out whatever the number of workers is;
//   - a run allocates nothing;
//   - the backward pass agrees with central differences of the reference, and each
//     backward op passes all of the above.
package optest

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
)

// Tolerance is the largest error of a float32 kernel, relative to the largest
// element of the tensor.
const Tolerance = 2e-5

// Run checks all cases except those that are only for benchmarks.
func Run(t *testing.T, cases []graph.Case) {
	t.Helper()
	ran := 0
	for _, c := range cases {
		if c.Bench {
			continue
		}
		ran++
		t.Run(c.Spec.Name+"/"+c.Name, func(t *testing.T) { runCase(t, c) })
	}
	if ran == 0 {
		t.Fatal("no case to check")
	}
}

func runCase(t *testing.T, c graph.Case) {
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, r)
	in := Draw(c, r)
	kernel(t, r, in)
	// An addition only passes its gradient on: there is no backward op to check.
	if c.Spec.Gradient != nil && c.Spec.Name != "add" {
		gradient(t, c, r, in)
	}
}

// refuses checks that each input is refused with one dimension too many.
func refuses(t *testing.T, r *graph.Resolved) {
	t.Helper()
	for i := range r.In {
		shapes := make([]graph.Shape, len(r.In))
		for k, o := range r.In {
			shapes[k] = o.Shape
		}
		shapes[i] = append(slices.Clone(shapes[i]), 2)
		if _, err := r.Spec.Resolve(shapes); err == nil {
			t.Errorf("input %s is accepted as %v", r.In[i].Name, shapes[i])
		}
	}
}

// Draw makes a case's random inputs, each representable in float32.
func Draw(c graph.Case, r *graph.Resolved) []graph.Array {
	h := fnv.New64a()
	fmt.Fprint(h, c.Spec.Name, c.Name)
	rng := rand.New(rand.NewPCG(h.Sum64(), 1))
	in := make([]graph.Array, len(r.In))
	for i, o := range r.In {
		in[i] = graph.NewArray(o.Shape)
		if fill := c.Fill[o.Name]; fill != nil {
			fill(rng, in[i])
		} else {
			for k := range in[i].Data {
				in[i].Data[k] = rng.NormFloat64()
			}
		}
		for k, x := range in[i].Data {
			in[i].Data[k] = float64(float32(x))
		}
	}
	return in
}

func clone(list []graph.Array) []graph.Array {
	out := make([]graph.Array, len(list))
	for i, a := range list {
		out[i] = graph.Array{Shape: a.Shape, Data: slices.Clone(a.Data)}
	}
	return out
}

// Expected runs the reference. Updated inputs are returned changed.
func Expected(r *graph.Resolved, in []graph.Array) (after, out []graph.Array) {
	after = clone(in)
	for _, o := range r.Out {
		out = append(out, graph.NewArray(o.Shape))
	}
	r.Spec.Reference(r.Dims, after, out)
	return after, out
}

func float32s(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// Buffer is a dense float32 copy of an array.
func Buffer(a graph.Array) graph.Buffer {
	return graph.Buffer{Rows: a.Shape.Rows(), Cols: a.Shape.Cols(), Stride: a.Shape.Cols(), F32: float32s(a.Data)}
}

// Near fails unless max|got-want| <= Tolerance * max|want|.
func Near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	scale := 0.0
	for _, w := range want {
		scale = math.Max(scale, math.Abs(w))
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= Tolerance*scale) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
	}
}

// Load loads a plan on its own CPU device, until the test ends.
func Load(t *testing.T, plan *graph.Plan) graph.Program {
	t.Helper()
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	p, err := dev.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Write fills a program's float32 input.
func Write(t *testing.T, p graph.Program, input string, a graph.Array) {
	t.Helper()
	if err := p.WriteFloats(input, float32s(a.Data)); err != nil {
		t.Fatal(err)
	}
}
