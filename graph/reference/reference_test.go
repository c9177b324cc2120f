package reference_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/reference"
)

// TestStridedSlots: columns of a wider tensor are read and written in place.
func TestStridedSlots(t *testing.T) {
	m := &reference.Memory{}
	m[graph.Params] = make([]float64, 20)
	for i := range m[graph.Params] {
		m[graph.Params][i] = float64(i)
	}
	s := graph.Slot{Region: graph.Params, Offset: 4, Col: 1, Rows: 3, Cols: 2, Stride: 5, Shape: graph.Shape{1, 3, 2}}
	a := m.Read(s)
	if want := []float64{5, 6, 10, 11, 15, 16}; !slices.Equal(a.Data, want) || !a.Shape.Equal(s.Shape) {
		t.Errorf("read %v %v, want %v", a.Shape, a.Data, want)
	}
	a.Data[0] = -1
	if m[graph.Params][5] != 5 {
		t.Error("what was read is no copy")
	}
	m.Write(s, []float64{-1, -2, -3, -4, -5, -6})
	want := []float64{0, 1, 2, 3, 4, -1, -2, 7, 8, 9, -3, -4, 12, 13, 14, -5, -6, 17, 18, 19}
	if !slices.Equal(m[graph.Params], want) {
		t.Errorf("memory is %v, want %v", m[graph.Params], want)
	}
}

// TestRun: inputs are read before outputs are written, so an op may overwrite its own input;
// updated inputs are written back.
func TestRun(t *testing.T) {
	turn := &graph.Spec{
		Name: "turn", Signature: "n![N], x[B T N] -> y[B T N]", InPlace: []int{1},
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i := range out[0].Data {
				out[0].Data[i] = in[1].Data[len(in[1].Data)-1-i] + in[0].Data[0]
			}
			in[0].Data[0]++
		},
	}
	b := graph.NewBuilder(add.Spec)
	n := b.State("n", 3)
	x := b.Input("x", graph.Float32, 1, 1, 3)
	b.Result("y", b.Apply(turn, n, b.Apply(turn, n, b.Add(x, x))))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	m := reference.NewMemory(p)
	m.Write(p.Inputs["x"], []float64{1, 2, 3})
	for run := range 3 {
		if err := m.Run(p); err != nil {
			t.Fatal(err)
		}
		k := float64(4*run + 1)
		if got, want := m.Read(p.Results["y"]).Data, []float64{2 + k, 4 + k, 6 + k}; !slices.Equal(got, want) {
			t.Errorf("run %d gives %v, want %v", run, got, want)
		}
	}
	if got := m.Read(p.States["n"]).Data; !slices.Equal(got, []float64{6, 0, 0}) {
		t.Errorf("the state is %v", got)
	}
}

func TestNoReference(t *testing.T) {
	b := graph.NewBuilder(add.Spec)
	b.Result("y", b.Apply(&graph.Spec{Name: "fast_only", Signature: "x[N] -> y[N]"}, b.Input("x", graph.Float32, 4)))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if err := reference.NewMemory(p).Run(p); err == nil || !strings.Contains(err.Error(), "step 0: fast_only has no reference") {
		t.Errorf("error is %v", err)
	}
}
