package selective_scan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/selective_scan"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestSelectiveScan(t *testing.T) { optest.Run(t, selective_scan.Cases()) }

// text is a random sequence, its weights, and the output of the one-shot form.
type text struct {
	dims graph.Dims
	in   []graph.Array
	y    graph.Array
}

func newText(t *testing.T, gated bool, dims graph.Dims) text {
	t.Helper()
	c := graph.Case{Name: "text", Spec: selective_scan.Spec(gated), Dims: dims, Fill: selective_scan.Cases()[0].Fill}
	r, err := c.Spec.ResolveDims(dims)
	if err != nil {
		t.Fatal(err)
	}
	in := optest.Draw(c, r)
	y, h := graph.NewArray(r.Out[0].Shape), graph.NewArray(r.Out[1].Shape)
	c.Spec.Reference(r.Dims, in, []graph.Array{y, h})
	return text{dims, in, y}
}

// piece returns tokens [from, to) of an activation, or a whole parameter.
func (x text) piece(a graph.Array, from, to int) graph.Array {
	if len(a.Shape) != 3 {
		return a
	}
	cols := a.Shape.Cols()
	p := graph.Array{Shape: graph.Shape{x.dims["B"], to - from, cols}}
	for b := range x.dims["B"] {
		row := a.Data[b*x.dims["T"]*cols:]
		p.Data = append(p.Data, row[from*cols:to*cols]...)
	}
	return p
}

func (x text) pieces(from, to int) (in []graph.Array) {
	for _, a := range x.in {
		in = append(in, x.piece(a, from, to))
	}
	return in
}

func TestPiecesGiveTheWholeText(t *testing.T) {
	for _, gated := range []bool{true, false} {
		x := newText(t, gated, graph.Dims{"B": 2, "T": 103, "C": 37, "N": 5})
		h := graph.NewArray(graph.Shape{2, 5, 37})
		h32 := optest.Buffer(h)
		from := 0
		for _, n := range []int{1, 2, 31, 1, 32, 36} { // within, up to and across a chunk
			r, err := selective_scan.CarrySpec(gated).ResolveDims(graph.Dims{"B": 2, "T": n, "C": 37, "N": 5})
			if err != nil {
				t.Fatal(err)
			}
			in, want := x.pieces(from, from+n), x.piece(x.y, from, from+n)
			got := graph.NewArray(want.Shape)
			r.Spec.Reference(r.Dims, append(in, h), []graph.Array{got})
			optest.Near(t, "reference", optest.Buffer(got).F32, want.Data)

			var in32 []graph.Buffer
			for _, a := range in {
				in32 = append(in32, optest.Buffer(a))
			}
			y := optest.Buffer(graph.NewArray(want.Shape))
			r.Spec.CPU(&graph.CPUCall{
				Dims: r.Dims, Pool: simd.Serial{}, In: append(in32, h32), Out: []graph.Buffer{y},
				Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
			})()
			optest.Near(t, "kernel", y.F32, want.Data)
			from += n
		}
	}
}

func TestApplyCarriesTheStates(t *testing.T) {
	for _, gated := range []bool{true, false} {
		const piece = 5
		x := newText(t, gated, graph.Dims{"B": 2, "T": 2 * piece, "C": 6, "N": 3})
		b := graph.NewBuilder(add.Spec)
		b.SetCarry(graph.Carry{})
		var in [8]graph.Tensor
		for i, a := range x.pieces(0, piece) {
			in[i] = b.Input(fmt.Sprint(i), graph.Float32, a.Shape...)
		}
		b.Scope("mixer", func() {
			b.Result("y", selective_scan.Apply(b, in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]))
		})
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if s := plan.States["mixer.h"].Shape; !s.Equal(graph.Shape{2, 3, 6}) {
			t.Errorf("state mixer.h is %v, want [2 3 6]", s)
		}
		p := optest.Load(t, plan)
		y := optest.Buffer(graph.NewArray(graph.Shape{2, piece, 6}))
		for range 2 { // the second sequence starts from zeros again
			for from := 0; from < 2*piece; from += piece {
				for i, a := range x.pieces(from, from+piece) {
					if err := p.WriteFloats(fmt.Sprint(i), optest.Buffer(a).F32); err != nil {
						t.Fatal(err)
					}
				}
				if err := p.Run(); err != nil {
					t.Fatal(err)
				}
				if err := p.Read("y", y.F32); err != nil {
					t.Fatal(err)
				}
				optest.Near(t, "y", y.F32, x.piece(x.y, from, from+piece).Data)
			}
			if err := p.ResetStates(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestGradientInPlace gives du the same buffer as dy, as a plan may.
func TestGradientInPlace(t *testing.T) {
	for _, gated := range []bool{true, false} {
		x := newText(t, gated, graph.Dims{"B": 2, "T": 70, "C": 75, "N": 5})
		step := backwardStep(t, x, gated)
		bind := func(inPlace bool) []graph.Buffer {
			c := &graph.CPUCall{Dims: step.Dims, Pool: simd.Serial{}, Workspace: make([]float32, step.Spec.Workspace(step.Dims, 1))}
			saved := graph.NewArray(step.Resolved.In[len(x.in)].Shape)
			selective_scan.Spec(gated).Reference(step.Dims, x.in, []graph.Array{graph.NewArray(x.y.Shape), saved})
			for _, a := range append(slices.Clone(x.in), saved, x.y) { // y serves as dy
				c.In = append(c.In, optest.Buffer(a))
			}
			for _, o := range step.Resolved.Out {
				c.Out = append(c.Out, optest.Buffer(graph.NewArray(o.Shape)))
			}
			if inPlace {
				c.Out[0] = c.In[step.Spec.InPlace[0]]
			}
			step.Spec.CPU(c)()
			return c.Out
		}
		want := bind(false)
		for i, got := range bind(true) {
			if !slices.Equal(got.F32, want[i].F32) {
				t.Errorf("gated %v: %s differs when du takes over dy", gated, step.Resolved.Out[i].Name)
			}
		}
	}
}

// backwardStep returns the op's backward step from a plan.
func backwardStep(t *testing.T, x text, gated bool) graph.Step {
	t.Helper()
	b := graph.NewBuilder(add.Spec)
	var in []graph.Tensor
	for i, a := range x.in {
		in = append(in, b.Param(fmt.Sprint(i), nil, a.Shape...))
	}
	sum := &graph.Spec{
		Name: "sum", Signature: "y[B T C] -> s[]",
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(&graph.Spec{Name: "ones", Signature: "y[B T C] -> dy[B T C]"}, g.In[0])}
		},
	}
	if err := b.Gradients(b.Apply(sum, b.Apply(selective_scan.Spec(gated), in...))); err != nil {
		t.Fatal(err)
	}
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return plan.Steps[len(plan.Steps)-1]
}

func TestBackwardRefusesStatesOfOtherChunks(t *testing.T) {
	x := newText(t, false, graph.Dims{"B": 1, "T": 40, "C": 6, "N": 3})
	step := backwardStep(t, x, false)
	var shapes []graph.Shape
	for _, o := range step.Resolved.In {
		shapes = append(shapes, o.Shape)
	}
	shapes[len(x.in)] = graph.Shape{1, 5, 3, 6}
	_, err := step.Spec.Resolve(shapes)
	if err == nil || !strings.Contains(err.Error(), "h holds the states of 5 chunks, 40 tokens have 2") {
		t.Errorf("got %v", err)
	}
}
