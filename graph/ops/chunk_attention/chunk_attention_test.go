package chunk_attention_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/chunk_attention"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestChunkAttention(t *testing.T) { optest.Run(t, chunk_attention.Cases()) }

// text is a random text and its one-shot attention.
type text struct {
	rows, tokens, width, values, chunk int
	in                                 []graph.Array // q, k, v, bias
	o                                  graph.Array
}

func newText(t *testing.T, rows, tokens, chunk int) text {
	t.Helper()
	x := text{rows: rows, tokens: tokens, width: 5, values: 8, chunk: chunk}
	one := graph.Case{Name: "text", Spec: chunk_attention.Spec(), Dims: graph.Dims{"B": rows, "T": tokens, "D": x.width, "C": x.values, "W": chunk}}
	r, err := one.Spec.ResolveDims(one.Dims)
	if err != nil {
		t.Fatal(err)
	}
	x.in, x.o = optest.Draw(one, r), graph.NewArray(r.Out[0].Shape)
	one.Spec.Reference(r.Dims, x.in, []graph.Array{x.o, graph.NewArray(r.Out[1].Shape)})
	return x
}

// piece is tokens [from, to) of each row of a.
func (x text) piece(a graph.Array, from, to int) graph.Array {
	p := graph.Array{Shape: graph.Shape{x.rows, to - from, a.Shape[2]}}
	for b := range x.rows {
		p.Data = append(p.Data, a.Data[(b*x.tokens+from)*a.Shape[2]:(b*x.tokens+to)*a.Shape[2]]...)
	}
	return p
}

func TestPiecesGiveTheWholeText(t *testing.T) {
	for _, chunk := range []int{1, 5, 16, 100, 1000} {
		for _, pieces := range [][]int{
			{100},
			{60, 40},
			{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 33, 57},
			{7, 7, 8, 64, 6, 1, 1, 1, 2, 3},
			{16, 16, 15, 1, 4, 48},
		} {
			t.Run(fmt.Sprintf("chunk %d/%v", chunk, pieces), func(t *testing.T) { feed(t, newText(t, 2, 100, chunk), pieces) })
		}
	}
}

func feed(t *testing.T, x text, pieces []int) {
	key, value := graph.NewArray(graph.Shape{x.rows, x.chunk, x.width}), graph.NewArray(graph.Shape{x.rows, x.chunk, x.values})
	key32, value32 := optest.Buffer(key), optest.Buffer(value)
	from := 0
	for _, n := range pieces {
		r, err := chunk_attention.CarrySpec().ResolveDims(graph.Dims{"B": x.rows, "T": n, "D": x.width, "C": x.values, "W": x.chunk})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d tokens from %d", n, from)
		q, k, v := x.piece(x.in[0], from, from+n), x.piece(x.in[1], from, from+n), x.piece(x.in[2], from, from+n)
		want, got := x.piece(x.o, from, from+n), graph.NewArray(v.Shape)
		position := at(from, r.Dims["B"])
		r.Spec.Reference(r.Dims, []graph.Array{q, k, v, x.in[3], key, value, position}, []graph.Array{got})
		near(t, "reference: "+name, optest.Buffer(got).F32, want.Data)

		o := optest.Buffer(graph.NewArray(v.Shape))
		r.Spec.CPU(&graph.CPUCall{
			Dims: r.Dims, Pool: simd.Serial{},
			In: []graph.Buffer{optest.Buffer(q), optest.Buffer(k), optest.Buffer(v), optest.Buffer(x.in[3]), key32, value32,
				{Rows: 1, Cols: x.rows, Stride: x.rows, I32: slices.Repeat([]int32{int32(from)}, x.rows)}},
			Out:       []graph.Buffer{o},
			Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
		})()
		near(t, "kernel: "+name, o.F32, want.Data)
		from += n
	}
}

// TestApplyCarries decodes a text token by token with the states that Apply makes.
func TestApplyCarries(t *testing.T) {
	x := newText(t, 2, 13, 6)
	b := graph.NewBuilder(add.Spec)
	b.SetCarry(graph.Carry{})
	var in []graph.Tensor
	names := []string{"q", "k", "v"}
	for i, name := range names {
		in = append(in, b.Input(name, graph.Float32, x.rows, 1, x.in[i].Shape[2]))
	}
	bias := b.Input("bias", graph.Float32, x.chunk)
	b.Scope("mixer", func() { b.Result("o", chunk_attention.Apply(b, in[0], in[1], in[2], bias)) })
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.States["mixer.value"].Shape; !got.Equal(graph.Shape{x.rows, x.chunk, x.values}) {
		t.Errorf("the value state is %v", got)
	}
	program := optest.Load(t, plan)
	optest.Write(t, program, "bias", x.in[3])
	o := make([]float32, x.rows*x.values)
	for position := range x.tokens {
		for i, name := range names {
			optest.Write(t, program, name, x.piece(x.in[i], position, position+1))
		}
		if err := program.WriteInts(graph.PositionInput, slices.Repeat([]int32{int32(position)}, x.rows)); err != nil {
			t.Fatal(err)
		}
		if err := program.Run(); err != nil {
			t.Fatal(err)
		}
		if err := program.Read("o", o); err != nil {
			t.Fatal(err)
		}
		near(t, fmt.Sprintf("position %d", position), o, x.piece(x.o, position, position+1).Data)
	}
	// The last token again: the same position may be run any number of times.
	if n := testing.AllocsPerRun(2, func() { program.Run() }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// TestNaN: a NaN among the keys affects the tokens of its chunk that see it, and no others.
func TestNaN(t *testing.T) {
	x := newText(t, 1, 13, 5)
	x.in[1].Row(6)[2] = math.NaN()
	r, err := chunk_attention.Spec().ResolveDims(graph.Dims{"B": 1, "T": 13, "D": x.width, "C": x.values, "W": 5})
	if err != nil {
		t.Fatal(err)
	}
	o, lse := optest.Buffer(graph.NewArray(r.Out[0].Shape)), optest.Buffer(graph.NewArray(r.Out[1].Shape))
	r.Spec.CPU(&graph.CPUCall{
		Dims: r.Dims, Pool: simd.Serial{},
		In:        []graph.Buffer{optest.Buffer(x.in[0]), optest.Buffer(x.in[1]), optest.Buffer(x.in[2]), optest.Buffer(x.in[3])},
		Out:       []graph.Buffer{o, lse},
		Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
	})()
	for i := range o.Rows {
		sees := i >= 6 && i < 10
		if got := o.Row(i)[0] != o.Row(i)[0]; got != sees {
			t.Errorf("token %d: o is %v, want NaN %v", i, o.Row(i), sees)
		}
	}
}

func near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= 1e-5) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
	}
}

// at is the same position for all rows.
func at(position, rows int) graph.Array {
	return graph.Array{Shape: graph.Shape{rows}, Data: slices.Repeat([]float64{float64(position)}, rows)}
}
