package rope_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestRope(t *testing.T) { optest.Run(t, rope.Cases()) }

// TestPieces feeds a text in pieces to the stateful form, and compares with the one-shot forward
// pass.
func TestPieces(t *testing.T) {
	const rows, heads, headDim, base = 2, 3, 10, 10000
	pieces := []int{1, 1, 20, 3, 16}
	total := 0
	for _, n := range pieces {
		total += n
	}
	whole := rope.Spec(headDim, base)
	r, err := whole.ResolveDims(graph.Dims{"B": rows, "T": total, "H": heads})
	if err != nil {
		t.Fatal(err)
	}
	in := optest.Draw(graph.Case{Spec: whole}, r)
	want := graph.NewArray(r.Out[0].Shape)
	whole.Reference(r.Dims, in, []graph.Array{want})

	device, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	first := 0
	for _, n := range pieces {
		b := graph.NewBuilder(add.Spec)
		b.SetCarry(graph.Carry{Positions: total})
		x := b.Input("x", graph.Float32, rows, n, heads*headDim)
		b.Result("y", rope.Apply(b, x, headDim, base))
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		program, err := device.Load(plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		memory := reference.NewMemory(plan)

		part := tokens(in[0], first, n)
		memory.Write(plan.Inputs["x"], part.Data)
		memory.Write(plan.Inputs[graph.PositionInput], slices.Repeat([]float64{float64(first)}, rows))
		if err := memory.Run(plan); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(part.Data))
		for i, v := range part.Data {
			got[i] = float32(v)
		}
		if err := program.WriteFloats("x", got); err != nil {
			t.Fatal(err)
		}
		if err := program.WriteInts(graph.PositionInput, slices.Repeat([]int32{int32(first)}, rows)); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(2, func() { program.Run() }); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
		if err := program.Read("y", got); err != nil {
			t.Fatal(err)
		}
		slow := memory.Read(plan.Results["y"])
		for i, w := range tokens(want, first, n).Data {
			if !(math.Abs(slow.Data[i]-w) <= 1e-12) {
				t.Fatalf("reference: %d tokens from %d: element %d is %v, want %v", n, first, i, slow.Data[i], w)
			}
			if !(math.Abs(float64(got[i])-w) <= 1e-5) {
				t.Fatalf("cpu: %d tokens from %d: element %d is %v, want %v", n, first, i, got[i], w)
			}
		}
		first += n
	}
}

// tokens is tokens [first, first+n) of each row of a.
func tokens(a graph.Array, first, n int) graph.Array {
	s := a.Shape
	part := graph.NewArray(graph.Shape{s[0], n, s[2]})
	for b := range s[0] {
		copy(part.Data[b*n*s[2]:(b+1)*n*s[2]], a.Data[(b*s[1]+first)*s[2]:])
	}
	return part
}

// TestKnown compares with a rotation computed by hand.
func TestKnown(t *testing.T) {
	s := rope.Spec(4, 100) // channels 0 and 2 rotate by 1 per token, 1 and 3 by 1/10
	r, err := s.ResolveDims(graph.Dims{"B": 1, "T": 3, "H": 1})
	if err != nil {
		t.Fatal(err)
	}
	x, y := graph.NewArray(r.In[0].Shape), graph.NewArray(r.Out[0].Shape)
	copy(x.Row(2), []float64{1, 0, 0, 2})
	s.Reference(r.Dims, []graph.Array{x}, []graph.Array{y})
	want := []float64{math.Cos(2), -2 * math.Sin(0.2), math.Sin(2), 2 * math.Cos(0.2)}
	for i, w := range want {
		if !(math.Abs(y.Row(2)[i]-w) <= 1e-15) {
			t.Errorf("channel %d is %v, want %v", i, y.Row(2)[i], w)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		headDim int
		base    float64
		width   int
		want    string
	}{
		{"odd head", 5, 10000, 10, "must be even"},
		{"no base", 4, 0, 8, "base is 0"},
		{"width", 4, 10000, 10, "does not divide"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := graph.NewBuilder(add.Spec)
			rope.Apply(b, b.Input("x", graph.Float32, 1, 2, c.width), c.headDim, c.base)
			if err := b.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q in it", err, c.want)
			}
		})
	}
}
