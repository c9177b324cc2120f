package graph_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/round"
	"github.com/sambatrain/sambatrain/graph/ops/swiglu"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

// gated is the plan of an MLP of hidden width f for a number of tokens, with the gradients of its
// weights.
func gated(t *testing.T, mixed bool, tokens, f int) *graph.Plan {
	t.Helper()
	const d = 16
	b := layers.NewBuilder(layers.Precision{Mixed: mixed})
	x, target := b.Input("x", graph.Float32, 1, tokens, d), b.Input("target", graph.Float32, 1, tokens, d)
	x = linear.Apply(b, x, b.Param("in", nil, d, d))
	h := swiglu.Apply(b, linear.Apply(b, x, b.Param("gate", nil, f, d)), linear.Apply(b, x, b.Param("up", nil, f, d)))
	loss := b.Apply(total(2), linear.Apply(b, h, b.Param("down", nil, d, f)), target)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	b.Result("loss", loss)
	p := compile(t, b)
	if tokens < 100 { // it visits each element
		untorn(t, p)
	}
	return p
}

// TestMerge: in mixed precision one product computes the gradient of the input that gate and up
// share, if their gradients can be columns of one tensor without padding.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		mixed  bool
		f      int
		merged bool
	}{{true, 104, true}, {true, 98, false}, {false, 104, false}} {
		products := map[string]int{}
		for _, s := range gated(t, c.mixed, 24, c.f).Steps {
			products[s.Spec.Name]++
		}
		// The gradient of the hidden tensor is always a product.
		want := map[bool][2]int{true: {2, 0}, false: {2, 1}}[c.merged]
		if got := [2]int{products["linear_dx"], products["linear_dx_add"]}; got != want {
			t.Errorf("mixed %v, width %d: %v products without and with a sum, want %v", c.mixed, c.f, got, want)
		}
	}
}

// TestRowsOfBFloat16: bfloat16 rows whose size is not a multiple of 16 bytes are padded for matrix
// products, those of weights only if there are many tokens; the numbers stay the same.
func TestRowsOfBFloat16(t *testing.T) {
	const many, few = 1024, 24
	for _, c := range []struct {
		name           string
		mixed          bool
		tokens, f      int
		stride, copies int // of the hidden activations, and of the weight with as many columns
	}{
		{"mixed", true, many, 100, 104, 1},
		{"mixed, 6 between rows", true, many, 98, 104, 1},
		{"few tokens", true, few, 100, 104, 0},
		{"aligned", true, many, 104, 104, 0},
		{"narrow", true, many, 20, 20, 0},
		{"float32", false, many, 100, 100, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := gated(t, c.mixed, c.tokens, c.f)
			copies, hidden := 0, 0
			for _, s := range p.Steps {
				for _, slot := range append(append([]graph.Slot{}, s.In...), s.Out...) {
					if slot.Region == graph.Arena && slot.Rows == c.tokens && slot.Cols == c.f {
						hidden++
						joined := c.mixed && slot.Stride == 2*c.f // gradients of gate and up, side by side
						if slot.Stride != c.stride && !joined {
							t.Errorf("%s: rows of %d are %d apart, want %d", s.Spec.Name, c.f, slot.Stride, c.stride)
						}
					}
				}
				if s.Spec.Name == "round" && s.In[0].Region == graph.Shadow {
					copies++
				}
			}
			if copies != c.copies || hidden == 0 {
				t.Errorf("%d copies of weights, want %d\n%v", copies, c.copies, p)
			}
		})
	}
	padded, exact := gated(t, true, many, 100), gated(t, false, many, 100)
	a, b := reference.NewMemory(padded), reference.NewMemory(exact)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range exact.Sizes[graph.Params] {
		x := r.NormFloat64() / 8
		a[graph.Params][i], b[graph.Params][i] = x, x
	}
	for name, slot := range exact.Inputs {
		for i := range slot.Shape.Size() {
			x := r.NormFloat64()
			a[graph.Inputs][padded.Inputs[name].Offset+i], b[graph.Inputs][slot.Offset+i] = x, x
		}
	}
	for _, run := range []struct {
		m *reference.Memory
		p *graph.Plan
	}{{a, padded}, {b, exact}} {
		if err := run.m.Run(run.p); err != nil {
			t.Fatal(err)
		}
	}
	var diff, size float64
	for i, g := range b[graph.Grads] {
		diff += (g - a[graph.Grads][i]) * (g - a[graph.Grads][i])
		size += g * g
	}
	if e := math.Sqrt(diff / size); !(e < 1e-2) {
		t.Errorf("gradients differ by %.2g", e)
	}
}

// TestDenseRows: rows are not padded if one of the ops that write or read them can't leave gaps.
func TestDenseRows(t *testing.T) {
	const strided, dense = "B T N", "B S N" // only activations [B T ...] may have gaps
	for _, c := range []struct {
		writer, reader string
		stride         int
	}{{strided, strided, 72}, {dense, strided, 66}, {strided, dense, 66}} {
		b := newBuilder()
		b.SetMixed(round.Spec())
		x := b.Apply(typed("writer", "", c.writer, ""), b.Input("x", graph.Float32, 1, 2, 66))
		b.Result("y", b.Apply(typed("reader", "", c.reader, ""), x))
		p := compile(t, b)
		if got := p.Steps[0].Out[0].Stride; got != c.stride {
			t.Errorf("[%s] read as [%s]: rows are %d apart, want %d", c.writer, c.reader, got, c.stride)
		}
	}
}
