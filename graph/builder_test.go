package graph_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
)

// TestBuilderErrors: each misuse is rejected where it happens, and Compile and Gradients return the
// first error again.
func TestBuilderErrors(t *testing.T) {
	intSpec := &graph.Spec{Name: "lookup", Signature: "ids:i32[B T N] -> y[B T N]"}
	other := newBuilder()
	foreign := other.Input("x", graph.Float32, 1, 2, 3)
	for _, c := range []struct {
		name  string
		build func(b *graph.Builder, x graph.Tensor)
		want  []string
	}{
		{"shape", func(b *graph.Builder, x graph.Tensor) {
			b.Apply(mul(), x, b.Input("y", graph.Float32, 1, 2, 4))
		}, []string{"mul: x1[B T N], got [1 2 4]: N is 3, not 4"}},
		{"scope", func(b *graph.Builder, x graph.Tensor) {
			b.Scope("model", func() { b.Scope("layers.3", func() { b.Apply(mul(), x) }) })
		}, []string{"model.layers.3: mul: wants 2 inputs, got 1"}},
		{"missing input", func(b *graph.Builder, x graph.Tensor) { b.Apply(mul(), x, graph.Tensor{}) },
			[]string{"mul: input 1 is missing"}},
		{"no input", func(b *graph.Builder, _ graph.Tensor) {
			b.Apply(&graph.Spec{Name: "source", Signature: "-> y[4]"})
		}, []string{"source: an op needs an input"}},
		{"foreign input", func(b *graph.Builder, x graph.Tensor) { b.Apply(mul(), x, foreign) },
			[]string{"mul: input 1 belongs to another builder"}},
		{"float for int", func(b *graph.Builder, x graph.Tensor) { b.Apply(intSpec, x) },
			[]string{"lookup: ids must be int32, is float32"}},
		{"int for float", func(b *graph.Builder, x graph.Tensor) {
			b.Apply(mul(), x, b.Input("ids", graph.Int32, 1, 2, 3))
		}, []string{"mul: x1 must be float32, is int32"}},
		{"updated op output", func(b *graph.Builder, x graph.Tensor) { b.Apply(count(), b.Apply(scale(2), x), x) },
			[]string{"count: sum is updated in place, so it must be a state or a region"}},
		{"two inputs of one name", func(b *graph.Builder, _ graph.Tensor) { b.Input("x", graph.Float32, 1, 2, 3) },
			[]string{"two tensors are named x"}},
		{"state and parameter of one name", func(b *graph.Builder, _ graph.Tensor) {
			b.Scope("a", func() {
				b.State("s", 4)
				b.Param("s", nil, 4)
			})
		}, []string{"two tensors are named a.s"}},
		{"no name", func(b *graph.Builder, _ graph.Tensor) { b.Input("", graph.Float32, 4) }, []string{"a tensor has no name"}},
		{"empty dimension", func(b *graph.Builder, _ graph.Tensor) { b.Param("w", nil, 4, 0) },
			[]string{"w: dimension 1 of [4 0] must be positive"}},
		{"too many elements", func(b *graph.Builder, _ graph.Tensor) { b.Param("w", nil, 1<<40, 1<<40) },
			[]string{"w: [1099511627776 1099511627776] has too many elements"}},
		{"tied with another shape", func(b *graph.Builder, _ graph.Tensor) {
			b.Param("w", nil, 4, 2)
			b.Param("w", nil, 2, 4)
		}, []string{"parameter w is [4 2] and [2 4]"}},
		{"columns outside", func(b *graph.Builder, x graph.Tensor) { b.Columns(x, 1, 4) }, []string{"columns: no columns 1 to 4 in [1 2 3]"}},
		{"columns backwards", func(b *graph.Builder, x graph.Tensor) { b.Columns(x, 2, 2) }, []string{"columns: no columns 2 to 2"}},
		{"columns below", func(b *graph.Builder, x graph.Tensor) { b.Columns(x, -1, 2) }, []string{"columns: no columns -1 to 2"}},
		{"columns of nothing", func(b *graph.Builder, _ graph.Tensor) { b.Columns(graph.Tensor{}, 0, 1) }, []string{"columns: the input is missing"}},
		{"columns of a scalar", func(b *graph.Builder, x graph.Tensor) { b.Columns(b.Apply(total(1), x), 0, 1) }, []string{"columns: no columns 0 to 1 in []"}},
		{"columns of ints", func(b *graph.Builder, _ graph.Tensor) { b.Columns(b.Input("i", graph.Int32, 4), 0, 1) },
			[]string{"columns: the input must be float32, is int32"}},
		{"no such output", func(b *graph.Builder, x graph.Tensor) { b.Apply(square(), x).Output(2) }, []string{"has no output 2"}},
		{"negative output", func(b *graph.Builder, x graph.Tensor) { b.Apply(square(), x).Output(-1) }, []string{"has no output -1"}},
		{"output of an input", func(b *graph.Builder, x graph.Tensor) { x.Output(1) }, []string{"has no output 1"}},
		{"missing result", func(b *graph.Builder, _ graph.Tensor) { b.Result("r", graph.Tensor{}) }, []string{"result r is missing"}},
		{"two results of one name", func(b *graph.Builder, x graph.Tensor) {
			b.Result("r", x)
			b.Result("r", b.Apply(scale(2), x))
		}, []string{"two results are named r"}},
		{"result of an op without outputs", func(b *graph.Builder, x graph.Tensor) {
			b.Result("r", b.Apply(&graph.Spec{Name: "touch", Signature: "s![N], x[B T N] ->"}, b.State("s", 3), x))
		}, []string{"result r is missing"}},
		{"whole arena", func(b *graph.Builder, _ graph.Tensor) { b.Whole(graph.Arena, 16) }, []string{"region arena can't be used as a whole"}},
		{"whole region and parameters", func(b *graph.Builder, _ graph.Tensor) {
			b.Param("w", nil, 4)
			b.Whole(graph.Grads, 16)
		}, []string{"region grads can't be used as a whole in a graph with parameters"}},
		{"parameters and a whole region", func(b *graph.Builder, _ graph.Tensor) {
			b.Whole(graph.Grads, 16)
			b.Param("w", nil, 4)
		}, []string{"parameter w: a graph that uses region grads as a whole can't have parameters"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			x := b.Input("x", graph.Float32, 1, 2, 3)
			c.build(b, x)
			wantError(t, b.Err(), c.want...)
			_, err := b.Compile()
			wantError(t, err, c.want...)
			if err := b.Gradients(x); err != b.Err() {
				t.Errorf("Gradients gives %v, not the first error", err)
			}
		})
	}
}

// TestFirstErrorStays: after an error every result is the zero Tensor, the rest of Scope's f still
// runs, and later errors are dropped.
func TestFirstErrorStays(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 3)
	first := errors.New("the first")
	b.Scope("layer", func() { b.Fail(first) })
	b.Fail(errors.New("the second"))
	if b.Err().Error() != "layer: the first" || !errors.Is(b.Err(), first) {
		t.Errorf("error is %v", b.Err())
	}
	for name, got := range map[string]graph.Tensor{
		"Input": b.Input("y", graph.Float32, 1), "Param": b.Param("w", nil, 1), "State": b.State("s", 1),
		"Whole": b.Whole(graph.Params, 1), "Apply": b.Apply(scale(2), x), "Add": b.Add(x, x), "Columns": b.Columns(x, 0, 1),
		"Fail": b.Fail(errors.New("the third")),
	} {
		if got.Valid() || got.Shape() != nil {
			t.Errorf("%s gives %v after an error", name, got.Shape())
		}
	}
	ran := false
	b.Scope("later", func() { ran = true })
	if !ran {
		t.Error("Scope did not run its function after an error")
	}
	b.Result("r", x)
	if _, err := b.Compile(); err != b.Err() || err.Error() != "layer: the first" {
		t.Errorf("Compile gives %v", err)
	}
}

func TestFailWithoutError(t *testing.T) {
	b := newBuilder()
	b.Fail(nil)
	if b.Err() != nil {
		t.Errorf("Fail(nil) makes the error %v", b.Err())
	}
}

func TestPaths(t *testing.T) {
	b := newBuilder()
	var again graph.Tensor
	b.Scope("model", func() {
		b.Scope("layers.0", func() {
			b.Param("w", nil, 1, 2, 3)
			if got := b.Path("h"); got != "model.layers.0.h" {
				t.Errorf("path is %s", got)
			}
		})
		again = b.Param("v", nil, 1, 2, 3)
	})
	tied := b.Param("model.layers.0.w", nil, 1, 2, 3)
	b.Result("y", b.Add(again, tied))
	var names []string
	for _, p := range b.Params() {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"model.layers.0.w", "model.v"}, names); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	p := compile(t, b)
	if len(p.Params) != 2 || p.Params[1].Offset%16 != 0 || p.Sizes[graph.Params] != 32 {
		t.Errorf("layout is %+v in %d", p.Params, p.Sizes[graph.Params])
	}
}

// TestNothingIsMerged: gorgonia merges nodes whose hashes are equal, so each call must have a
// unique hash.
func TestNothingIsMerged(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 3)
	values := []float64{1, 2, 3, 4, 5, 6}
	for _, r := range []struct {
		name string
		y    graph.Tensor
	}{
		{"twice", b.Apply(scale(2), x)},
		{"thrice", b.Apply(scale(3), x)},
		{"twice again", b.Apply(scale(2), x)},
		{"sum", b.Add(x, x)},
		{"sum again", b.Add(x, x)},
		{"left", b.Columns(x, 0, 1)},
		{"middle", b.Columns(x, 1, 2)},
		{"left again", b.Columns(x, 0, 1)},
		{"slope", b.Apply(square(), x).Output(1)},
		{"another slope", b.Apply(square(), x).Output(1)},
	} {
		b.Result(r.name, r.y)
	}
	p := compile(t, b)
	if diff := cmp.Diff([]string{"scale", "scale", "scale", "add", "add", "square", "square"}, steps(p)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	m := load(t, p)
	m.input("x", values)
	m.run()
	times := func(a float64) []float64 {
		y := slices.Clone(values)
		for i := range y {
			y[i] *= a
		}
		return y
	}
	for name, want := range map[string][]float64{
		"twice": times(2), "thrice": times(3), "twice again": times(2), "sum": times(2), "sum again": times(2),
		"left": {1, 4}, "middle": {2, 5}, "left again": {1, 4}, "slope": times(2), "another slope": times(2),
	} {
		m.result(name, want)
	}
}

func TestPosition(t *testing.T) {
	b := newBuilder()
	if b.Carries() != nil {
		t.Error("a new builder carries")
	}
	b.SetCarry(graph.Carry{Positions: 7})
	if c := b.Carries(); c == nil || c.Positions != 7 {
		t.Errorf("carries %+v", c)
	}
	use := &graph.Spec{Name: "at", Signature: "p:i32[1] -> y[1]"}
	b.Result("a", b.Apply(use, b.Position(1)))
	b.Result("b", b.Apply(use, b.Position(1)))
	p := compile(t, b)
	if diff := cmp.Diff(map[string]graph.Slot{graph.PositionInput: {Region: graph.Inputs, Rows: 1, Cols: 1, Stride: 1, Shape: graph.Shape{1}, DType: graph.Int32}}, p.Inputs); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
}

// TestRange: parts of regions begin at whole cache lines; an element of Shadow holds two weights.
func TestRange(t *testing.T) {
	for _, c := range []struct {
		region graph.Region
		offset int
		ok     bool
	}{
		{graph.Params, 0, true}, {graph.Grads, 16, true}, {graph.ExpAvg, 8, false}, {graph.ExpAvgSq, -16, false},
		{graph.Shadow, 8, true}, {graph.Shadow, 4, false}, {graph.Arena, 0, false}, {graph.States, 0, false}, {graph.Regions, 0, false},
	} {
		b := newBuilder()
		b.Range(c.region, c.offset, 16)
		if c.ok && b.Err() != nil {
			t.Errorf("%v from %d on: %v", c.region, c.offset, b.Err())
		}
		if !c.ok {
			wantError(t, b.Err(), fmt.Sprintf("region %v can't be used from element %d on", c.region, c.offset))
		}
	}
}
