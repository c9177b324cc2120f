package causal_conv_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/causal_conv"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestCausalConv(t *testing.T) { optest.Run(t, causal_conv.Cases()) }

// text is a random text, its weights, and the result of the one-shot form.
type text struct {
	rows, tokens, channels, taps int
	x, w, bias, y                graph.Array
}

func newText(t *testing.T, rows, tokens, channels, taps int) text {
	t.Helper()
	c := graph.Case{Name: "text", Spec: causal_conv.Spec(), Dims: graph.Dims{"B": rows, "T": tokens, "C": channels, "J": taps}}
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	in := optest.Draw(c, r)
	y := graph.NewArray(r.Out[0].Shape)
	c.Spec.Reference(r.Dims, in, []graph.Array{y})
	return text{rows, tokens, channels, taps, in[0], in[1], in[2], y}
}

// piece is tokens [from, to) of a [B T C].
func (x text) piece(a graph.Array, from, to int) graph.Array {
	p := graph.Array{Shape: graph.Shape{x.rows, to - from, x.channels}}
	for b := range x.rows {
		p.Data = append(p.Data, a.Data[(b*x.tokens+from)*x.channels:(b*x.tokens+to)*x.channels]...)
	}
	return p
}

func TestPiecesGiveTheWholeText(t *testing.T) {
	for _, taps := range []int{2, 4, 8} {
		x := newText(t, 2, 23, 37, taps)
		tail := graph.NewArray(graph.Shape{x.rows, taps - 1, x.channels})
		tail32 := optest.Buffer(tail)
		from := 0
		for _, n := range []int{1, 2, 7, 1, 12} {
			r, err := causal_conv.CarrySpec().ResolveDims(graph.Dims{"B": x.rows, "T": n, "C": x.channels, "J": taps, "P": taps - 1})
			if err != nil {
				t.Fatal(err)
			}
			in, want := x.piece(x.x, from, from+n), x.piece(x.y, from, from+n)
			got := graph.NewArray(in.Shape)
			r.Spec.Reference(r.Dims, []graph.Array{in, x.w, x.bias, tail}, []graph.Array{got})
			optest.Near(t, "reference", optest.Buffer(got).F32, want.Data)

			y := optest.Buffer(graph.NewArray(in.Shape))
			r.Spec.CPU(&graph.CPUCall{
				Dims: r.Dims, Pool: simd.Serial{},
				In:        []graph.Buffer{optest.Buffer(in), optest.Buffer(x.w), optest.Buffer(x.bias), tail32},
				Out:       []graph.Buffer{y},
				Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
			})()
			optest.Near(t, "kernel", y.F32, want.Data)
			from += n
		}
	}
}

func TestApplyCarriesTheTail(t *testing.T) {
	for _, taps := range []int{1, 4} {
		const piece = 5
		x := newText(t, 2, 2*piece, 6, taps)
		b := graph.NewBuilder(add.Spec)
		b.SetCarry(graph.Carry{})
		b.Scope("mixer", func() {
			b.Result("y", causal_conv.Apply(b,
				b.Input("x", graph.Float32, x.rows, piece, x.channels),
				b.Input("w", graph.Float32, x.channels, 1, taps),
				b.Input("bias", graph.Float32, x.channels)))
		})
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := plan.States["mixer.tail"]; ok != (taps > 1) {
			t.Errorf("%d taps: states %v", taps, plan.States)
		}
		p := optest.Load(t, plan)
		optest.Write(t, p, "w", x.w)
		optest.Write(t, p, "bias", x.bias)
		got := make([]float32, x.rows*piece*x.channels)
		for range 2 { // the second text starts with zeros again
			for from := 0; from < x.tokens; from += piece {
				optest.Write(t, p, "x", x.piece(x.x, from, from+piece))
				if err := p.Run(); err != nil {
					t.Fatal(err)
				}
				if err := p.Read("y", got); err != nil {
					t.Fatal(err)
				}
				optest.Near(t, "y", got, x.piece(x.y, from, from+piece).Data)
			}
			if err := p.ResetStates(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCarryRefusesATailOfAnotherLength(t *testing.T) {
	_, err := causal_conv.CarrySpec().Resolve([]graph.Shape{{1, 5, 6}, {6, 1, 4}, {6}, {1, 2, 6}})
	if err == nil || !strings.Contains(err.Error(), "tail holds 2 tokens, 4 taps want 3") {
		t.Errorf("got %v", err)
	}
}
