package attention_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestAttention(t *testing.T) { optest.Run(t, attention.Cases()) }

func TestRotaryAttention(t *testing.T) {
	optest.Run(t, attention.RotaryCases(func(headDim int) attention.Rotation {
		return attention.Rotation{Turn: rope.Spec(headDim, 500), Back: rope.BackwardSpec(headDim, 500), Base: 500}
	}, func(headDim int) attention.Rotation {
		return attention.Rotation{Turn: rope.CarrySpec(headDim, 500), Base: 500}
	}))
}

// text is a random sequence and its one-shot attention.
type text struct {
	attention.Config
	rows, tokens int
	in           []graph.Array // q, k, v
	o            graph.Array
}

func newText(t *testing.T, c attention.Config, rows, tokens int) text {
	t.Helper()
	one := graph.Case{Name: "text", Spec: attention.Spec(c), Dims: graph.Dims{"B": rows, "T": tokens}}
	r, err := one.Spec.ResolveDims(one.Dims)
	if err != nil {
		t.Fatal(err)
	}
	x := text{c, rows, tokens, optest.Draw(one, r), graph.NewArray(r.Out[0].Shape)}
	one.Spec.Reference(r.Dims, x.in, []graph.Array{x.o, graph.NewArray(r.Out[1].Shape)})
	return x
}

// piece returns tokens [from, to) of each row of a.
func (x text) piece(a graph.Array, from, to int) graph.Array {
	p := graph.Array{Shape: graph.Shape{x.rows, to - from, a.Shape[2]}}
	for b := range x.rows {
		p.Data = append(p.Data, a.Data[(b*x.tokens+from)*a.Shape[2]:(b*x.tokens+to)*a.Shape[2]]...)
	}
	return p
}

// slots returns the length of the states.
func (x text) slots() int {
	if x.Window == 0 {
		return x.tokens
	}
	return x.Window
}

func TestPiecesGiveTheWholeText(t *testing.T) {
	for _, c := range []attention.Config{
		{Heads: 2, KVHeads: 2, HeadDim: 8, Window: 0},
		{Heads: 4, KVHeads: 2, HeadDim: 5, Window: 7},
		{Heads: 3, KVHeads: 1, HeadDim: 16, Window: 64},
		{Heads: 1, KVHeads: 1, HeadDim: 4, Window: 1},
		{Heads: 1, KVHeads: 1, HeadDim: 4, Window: 1000},
	} {
		for _, pieces := range [][]int{
			{100},
			{60, 40},
			{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 33, 57},
			{7, 7, 8, 64, 6, 1, 1, 1, 2, 3},
			{94, 1, 1, 1, 1, 1, 1},
		} {
			t.Run(fmt.Sprintf("%+v/%v", c, pieces), func(t *testing.T) {
				feed(t, newText(t, c, 2, 100), pieces)
			})
		}
	}
}

func feed(t *testing.T, x text, pieces []int) {
	state := graph.Shape{x.rows, x.slots(), x.KVHeads * x.HeadDim}
	key, value := graph.NewArray(state), graph.NewArray(state)
	key32, value32 := optest.Buffer(key), optest.Buffer(value)
	from := 0
	for _, n := range pieces {
		r, err := attention.CarrySpec(x.Config).ResolveDims(graph.Dims{"B": x.rows, "T": n, "W": x.slots()})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d tokens from %d", n, from)
		q, k, v := x.piece(x.in[0], from, from+n), x.piece(x.in[1], from, from+n), x.piece(x.in[2], from, from+n)
		want, got := x.piece(x.o, from, from+n), graph.NewArray(q.Shape)
		position := at(from, r.Dims["B"])
		r.Spec.Reference(r.Dims, []graph.Array{q, k, v, key, value, position}, []graph.Array{got})
		near(t, "reference: "+name, optest.Buffer(got).F32, want.Data)

		o := optest.Buffer(graph.NewArray(q.Shape))
		run := r.Spec.CPU(&graph.CPUCall{
			Dims: r.Dims, Pool: simd.Serial{},
			In: []graph.Buffer{optest.Buffer(q), optest.Buffer(k), optest.Buffer(v), key32, value32,
				{Rows: 1, Cols: x.rows, Stride: x.rows, I32: slices.Repeat([]int32{int32(from)}, x.rows)}},
			Out:       []graph.Buffer{o},
			Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
		})
		run()
		near(t, "kernel: "+name, o.F32, want.Data)
		from += n
	}
}

// TestApplyCarries decodes a sequence token by token with the states that Apply makes.
func TestApplyCarries(t *testing.T) {
	device, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, window := range []int{0, 5} {
		x := newText(t, attention.Config{Heads: 4, KVHeads: 2, HeadDim: 8, Window: window}, 2, 13)
		b := graph.NewBuilder(add.Spec)
		b.SetCarry(graph.Carry{Positions: x.tokens})
		var in []graph.Tensor
		for i, name := range []string{"q", "k", "v"} {
			in = append(in, b.Input(name, graph.Float32, x.rows, 1, x.in[i].Shape[2]))
		}
		b.Scope("mixer", func() { b.Result("o", attention.Apply(b, in[0], in[1], in[2], x.Config)) })
		plan, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.States["mixer.key"].Shape; !got.Equal(graph.Shape{x.rows, x.slots(), 16}) {
			t.Errorf("window %d: the key state is %v", window, got)
		}
		program, err := device.Load(plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := make([]float32, x.rows*x.o.Shape[2])
		for position := range x.tokens {
			for i, name := range []string{"q", "k", "v"} {
				if err := program.WriteFloats(name, optest.Buffer(x.piece(x.in[i], position, position+1)).F32); err != nil {
					t.Fatal(err)
				}
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
			near(t, fmt.Sprintf("window %d, position %d", window, position), o, x.piece(x.o, position, position+1).Data)
		}
		// The last token again: the same position may be run any number of times.
		if n := testing.AllocsPerRun(2, func() { program.Run() }); n != 0 {
			t.Errorf("window %d: %v allocations a run", window, n)
		}
	}
}

// TestInPlace: o may use the same buffer as q.
func TestInPlace(t *testing.T) {
	x := newText(t, attention.Config{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 5}, 2, 9)
	position := graph.Buffer{Rows: 1, Cols: 2, Stride: 2, I32: []int32{0, 0}}
	state := func() graph.Buffer { return optest.Buffer(graph.NewArray(graph.Shape{2, 5, 4})) }
	for _, c := range []struct {
		spec  *graph.Spec
		more  []graph.Buffer
		saved []graph.Buffer
	}{
		{attention.Spec(x.Config), nil, []graph.Buffer{optest.Buffer(graph.NewArray(graph.Shape{2, 9, 2}))}},
		{attention.CarrySpec(x.Config), []graph.Buffer{state(), state(), position}, nil},
	} {
		r, err := c.spec.ResolveDims(graph.Dims{"B": 2, "T": 9, "W": 5})
		if err != nil {
			t.Fatal(err)
		}
		q := optest.Buffer(x.in[0])
		r.Spec.CPU(&graph.CPUCall{
			Dims: r.Dims, Pool: simd.Serial{},
			In:        append([]graph.Buffer{q, optest.Buffer(x.in[1]), optest.Buffer(x.in[2])}, c.more...),
			Out:       append([]graph.Buffer{q}, c.saved...),
			Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
		})()
		near(t, c.spec.Name, q.F32, x.o.Data)
	}
}

// TestCacheOverflow: positions beyond the cache are a programming error.
func TestCacheOverflow(t *testing.T) {
	x := newText(t, attention.Config{Heads: 1, KVHeads: 1, HeadDim: 4}, 1, 6)
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "2 tokens from position 5 don't fit a cache of 6") {
			t.Errorf("the panic is %q", got)
		}
	}()
	r, err := attention.CarrySpec(x.Config).ResolveDims(graph.Dims{"B": 1, "T": 2, "W": 6})
	if err != nil {
		t.Fatal(err)
	}
	call := &graph.CPUCall{Dims: r.Dims, Pool: simd.Serial{}, Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1))}
	for _, o := range r.In[:5] {
		call.In = append(call.In, optest.Buffer(graph.NewArray(o.Shape)))
	}
	call.In = append(call.In, graph.Buffer{Rows: 1, Cols: 1, Stride: 1, I32: []int32{5}})
	call.Out = []graph.Buffer{optest.Buffer(graph.NewArray(r.Out[0].Shape))}
	r.Spec.CPU(call)()
}

// TestNaN: a NaN in the inputs reaches the tokens that see it, and no others.
func TestNaN(t *testing.T) {
	x := newText(t, attention.Config{Heads: 1, KVHeads: 1, HeadDim: 4, Window: 3}, 1, 9)
	x.in[1].Row(4)[2] = math.NaN()
	r, err := attention.Spec(x.Config).ResolveDims(graph.Dims{"B": 1, "T": 9})
	if err != nil {
		t.Fatal(err)
	}
	o, lse := optest.Buffer(graph.NewArray(r.Out[0].Shape)), optest.Buffer(graph.NewArray(r.Out[1].Shape))
	r.Spec.CPU(&graph.CPUCall{
		Dims: r.Dims, Pool: simd.Serial{},
		In:        []graph.Buffer{optest.Buffer(x.in[0]), optest.Buffer(x.in[1]), optest.Buffer(x.in[2])},
		Out:       []graph.Buffer{o, lse},
		Workspace: make([]float32, r.Spec.Workspace(r.Dims, 1)),
	})()
	for i := range o.Rows {
		sees := i >= 4 && i < 7
		if got := o.Row(i)[0] != o.Row(i)[0]; got != sees {
			t.Errorf("token %d: o is %v, want NaN %v", i, o.Row(i), sees)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name       string
		config     attention.Config
		q, k       int // widths
		carry      bool
		tokens     int
		wantInside string
	}{
		{"groups", attention.Config{Heads: 4, KVHeads: 3, HeadDim: 2}, 8, 6, false, 2, "kv_heads 3, which doesn't divide it"},
		{"window", attention.Config{Heads: 1, KVHeads: 1, HeadDim: 2, Window: -1}, 2, 2, false, 2, "window is -1"},
		{"no heads", attention.Config{Heads: 0, KVHeads: 0, HeadDim: 2}, 2, 2, false, 2, "H*D"},
		{"negative heads", attention.Config{Heads: -1, KVHeads: -1, HeadDim: -2}, 2, 2, false, 2, "must be positive"},
		{"query width", attention.Config{Heads: 2, KVHeads: 2, HeadDim: 2}, 6, 4, false, 2, "q[B T H*D]"},
		{"key width", attention.Config{Heads: 2, KVHeads: 1, HeadDim: 2}, 4, 4, false, 2, "k[B T K*D]"},
		{"negative window in a state", attention.Config{Heads: 1, KVHeads: 1, HeadDim: 2, Window: -1}, 2, 2, true, 2, "must be positive"},
		{"piece beyond the cache", attention.Config{Heads: 1, KVHeads: 1, HeadDim: 2}, 2, 2, true, 9, "9 tokens don't fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := graph.NewBuilder(add.Spec)
			if c.carry {
				b.SetCarry(graph.Carry{Positions: 8})
			}
			in := func(name string, width int) graph.Tensor { return b.Input(name, graph.Float32, 1, c.tokens, width) }
			attention.Apply(b, in("q", c.q), in("k", c.k), in("v", c.k), c.config)
			if err := b.Err(); err == nil || !strings.Contains(err.Error(), c.wantInside) {
				t.Errorf("the error is %v, want %q in it", err, c.wantInside)
			}
		})
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

// at is one position for all rows.
func at(position, rows int) graph.Array {
	return graph.Array{Shape: graph.Shape{rows}, Data: slices.Repeat([]float64{float64(position)}, rows)}
}
