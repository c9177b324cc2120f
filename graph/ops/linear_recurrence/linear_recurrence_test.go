package linear_recurrence_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/linear_recurrence"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestLinearRecurrence(t *testing.T) { optest.Run(t, linear_recurrence.Cases()) }

const rows, heads, keys, values = 2, 2, 5, 7

var logDecay = []float64{-0.01, -0.3}

// text is a random text, q k v and, unless decays are fixed, g, and its one-shot output.
type text struct {
	tokens int
	fixed  bool
	in     []graph.Array
	o      graph.Array
}

func newText(t *testing.T, tokens int, fixed bool) text {
	t.Helper()
	spec := linear_recurrence.Spec(heads)
	if fixed {
		spec = linear_recurrence.FixedSpec(logDecay)
	}
	c := graph.Case{Name: "text", Spec: spec, Dims: graph.Dims{"B": rows, "T": tokens, "Dk": keys, "Dv": values},
		Fill: map[string]graph.Fill{"g": graph.Uniform(-1, 0)}}
	r, err := spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	x := text{tokens, fixed, optest.Draw(c, r), graph.NewArray(r.Out[0].Shape)}
	spec.Reference(r.Dims, x.in, []graph.Array{x.o})
	return x
}

// piece is tokens [from, to) of each row of a.
func (x text) piece(a graph.Array, from, to int) graph.Array {
	w := a.Shape.Cols()
	p := graph.Array{Shape: graph.Shape{rows, to - from, w}}
	for b := range rows {
		p.Data = append(p.Data, a.Data[(b*x.tokens+from)*w:(b*x.tokens+to)*w]...)
	}
	return p
}

func forBoth(t *testing.T, test func(t *testing.T, fixed bool)) {
	for _, fixed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fixed %v", fixed), func(t *testing.T) { test(t, fixed) })
	}
}

func TestPiecesGiveTheWholeText(t *testing.T) {
	forBoth(t, func(t *testing.T, fixed bool) {
		x := newText(t, 150, fixed)
		spec := linear_recurrence.CarrySpec(heads)
		if fixed {
			spec = linear_recurrence.FixedCarrySpec(logDecay)
		}
		state := graph.NewArray(graph.Shape{rows, heads, keys, values})
		state32 := optest.Buffer(state)
		from := 0
		for _, n := range []int{1, 2, 63, 1, 80, 3} {
			r, err := spec.ResolveDims(graph.Dims{"B": rows, "T": n, "Dk": keys, "Dv": values})
			if err != nil {
				t.Fatal(err)
			}
			var in []graph.Array
			var in32 []graph.Buffer
			for _, a := range x.in {
				in = append(in, x.piece(a, from, from+n))
				in32 = append(in32, optest.Buffer(in[len(in)-1]))
			}
			want, got := x.piece(x.o, from, from+n), graph.NewArray(r.Out[0].Shape)
			spec.Reference(r.Dims, append(in, state), []graph.Array{got})
			optest.Near(t, "reference", optest.Buffer(got).F32, want.Data)

			o := optest.Buffer(graph.NewArray(r.Out[0].Shape))
			spec.CPU(&graph.CPUCall{
				Dims: r.Dims, Pool: simd.Serial{}, In: append(in32, state32), Out: []graph.Buffer{o},
				Workspace: make([]float32, spec.Workspace(r.Dims, 1)),
			})()
			optest.Near(t, "kernel", o.F32, want.Data)
			from += n
		}
	})
}

func TestApplyCarriesTheState(t *testing.T) {
	forBoth(t, func(t *testing.T, fixed bool) {
		const piece = 3
		x := newText(t, 4*piece, fixed)
		b := graph.NewBuilder(add.Spec)
		b.SetCarry(graph.Carry{})
		var in []graph.Tensor
		for i, a := range x.in {
			in = append(in, b.Input(fmt.Sprint(i), graph.Float32, rows, piece, a.Shape.Cols()))
		}
		b.Scope("mixer", func() {
			if fixed {
				b.Result("o", linear_recurrence.ApplyFixed(b, in[0], in[1], in[2], logDecay))
			} else {
				b.Result("o", linear_recurrence.Apply(b, in[0], in[1], in[2], in[3], heads))
			}
		})
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := plan.States["mixer.state"].Shape, (graph.Shape{rows, heads, keys, values}); !got.Equal(want) {
			t.Errorf("the state is %v, want %v", got, want)
		}
		p := optest.Load(t, plan)
		o := make([]float32, rows*piece*heads*values)
		for range 2 { // the second text starts with zeros again
			for from := 0; from < x.tokens; from += piece {
				for i, a := range x.in {
					optest.Write(t, p, fmt.Sprint(i), x.piece(a, from, from+piece))
				}
				if err := p.Run(); err != nil {
					t.Fatal(err)
				}
				if err := p.Read("o", o); err != nil {
					t.Fatal(err)
				}
				optest.Near(t, "o", o, x.piece(x.o, from, from+piece).Data)
			}
			if err := p.ResetStates(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestKnown compares with a state computed by hand: decays of a half and a quarter, keys that write
// 1 to both channels.
func TestKnown(t *testing.T) {
	spec := linear_recurrence.Spec(1)
	r, err := spec.ResolveDims(graph.Dims{"B": 1, "T": 3, "Dk": 2, "Dv": 1})
	if err != nil {
		t.Fatal(err)
	}
	array := func(x ...float64) graph.Array { return graph.Array{Shape: graph.Shape{1, 3, len(x) / 3}, Data: x} }
	half, quarter := math.Log(0.5), math.Log(0.25)
	o := graph.NewArray(r.Out[0].Shape)
	spec.Reference(r.Dims, []graph.Array{
		array(1, 0, 1, 0, 2, 4), array(1, 1, 1, 1, 1, 1), array(8, 16, 32),
		array(half, quarter, half, quarter, half, quarter),
	}, []graph.Array{o})
	// The channels hold 8 and 8, then 4+16 and 2+16, then 10+32 and 4.5+32.
	for i, want := range []float64{8, 20, 2*42 + 4*36.5} {
		if got := o.Data[i] * math.Sqrt2; !(math.Abs(got-want) <= 1e-12) {
			t.Errorf("token %d: sqrt(2) o is %v, want %v", i, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		spec   *graph.Spec
		widths []int // of q k v g
		want   string
	}{
		{"no heads", linear_recurrence.Spec(0), []int{4, 4, 4, 4}, "H*Dk"},
		{"negative heads", linear_recurrence.Spec(-1), []int{4, 4, 4, 4}, "heads is -1"},
		{"query width", linear_recurrence.Spec(3), []int{4, 4, 6, 4}, "q[B T H*Dk]"},
		{"key width", linear_recurrence.Spec(2), []int{4, 6, 4, 4}, "k[B T H*Dk]"},
		{"decay width", linear_recurrence.Spec(2), []int{4, 4, 4, 2}, "g[B T H*Dk]"},
		{"growth", linear_recurrence.FixedSpec([]float64{-1, 0.5}), []int{4, 4, 4}, "head 1 is 0.5"},
		{"no number", linear_recurrence.FixedSpec([]float64{math.NaN()}), []int{4, 4, 4}, "head 0 is NaN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var shapes []graph.Shape
			for _, w := range c.widths {
				shapes = append(shapes, graph.Shape{1, 2, w})
			}
			if _, err := c.spec.Resolve(shapes); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q in it", err, c.want)
			}
		})
	}
}
