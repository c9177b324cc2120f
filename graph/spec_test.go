package graph_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
)

func TestResolve(t *testing.T) {
	s := &graph.Spec{
		Name:      "heads",
		Signature: "x[B T H*D], w[H D], n:i32[B] -> y[B T H*D], part[H C], last[2*T]",
		Dims:      graph.Dims{"D": 4},
		Derive: func(d graph.Dims) error {
			d["C"] = d["T"] + 1
			return nil
		},
	}
	r, err := s.Resolve([]graph.Shape{{2, 3, 12}, {3, 4}, {2}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(graph.Dims{"B": 2, "T": 3, "H": 3, "D": 4, "C": 4}, r.Dims); diff != "" {
		t.Errorf("dims (-want +got):\n%s", diff)
	}
	want := []graph.Operand{
		{Name: "y", Shape: graph.Shape{2, 3, 12}, Strided: true},
		{Name: "part", Shape: graph.Shape{3, 4}},
		{Name: "last", Shape: graph.Shape{6}},
	}
	if diff := cmp.Diff(want, r.Out); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	if r.In[2].DType != graph.Int32 || r.In[2].Strided {
		t.Errorf("n is %+v", r.In[2])
	}
	again, err := s.ResolveDims(graph.Dims{"B": 2, "T": 3, "H": 3})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.In, again.In) + cmp.Diff(r.Out, again.Out); diff != "" {
		t.Errorf("ResolveDims differs:\n%s", diff)
	}
}

// TestStrided: only float activations [B T X] may be part of wider rows.
func TestStrided(t *testing.T) {
	r, err := (&graph.Spec{Name: "s", Signature: "a[B T D], b[B T], c:i32[B T D], d[T B D], e[B T D N] ->"}).
		ResolveDims(graph.Dims{"B": 2, "T": 3, "D": 4, "N": 5})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false, false, false} {
		if r.In[i].Strided != want {
			t.Errorf("%s: Strided is %v", r.In[i].Name, r.In[i].Strided)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	pair := &graph.Spec{Name: "pair", Signature: "x[B T H*D], w[H D] -> y[B T]"}
	for _, c := range []struct {
		name string
		spec *graph.Spec
		in   []graph.Shape
		want string
	}{
		{"too few", pair, []graph.Shape{{1, 2, 3}}, "pair: wants 2 inputs, got 1"},
		{"rank", pair, []graph.Shape{{2, 3}, {1, 3}}, "pair: x[B T H*D] wants 3 dimensions, got [2 3]"},
		{"product", pair, []graph.Shape{{1, 2, 7}, {2, 3}}, "pair: x[B T H*D], got [1 2 7]: H*D is 6, not 7"},
		{"zero", pair, []graph.Shape{{1, 0, 6}, {2, 3}}, "size 0 is not positive"},
		{"negative", pair, []graph.Shape{{1, -4, 6}, {2, 3}}, "size -4 is not positive"},
		{"conflict", &graph.Spec{Name: "p", Signature: "x[N], y[N] ->"}, []graph.Shape{{2}, {3}}, "p: y[N], got [3]: N is 2, not 3"},
		{"fixed", &graph.Spec{Name: "p", Signature: "x[N] ->", Dims: graph.Dims{"N": 5}}, []graph.Shape{{2}}, "N is 5, not 2"},
		{"number", &graph.Spec{Name: "p", Signature: "x[4] ->"}, []graph.Shape{{2}}, "4 is 4, not 2"},
		{"two unknown", &graph.Spec{Name: "p", Signature: "x[H*D] ->"}, []graph.Shape{{6}}, "H and D are both unknown"},
		{"does not divide", &graph.Spec{Name: "p", Signature: "x[H*4] ->"}, []graph.Shape{{6}}, "6 does not divide into H*4 with 4 known"},
		{"unknown output", &graph.Spec{Name: "p", Signature: "x[N] -> y[M]"}, []graph.Shape{{6}}, "p: y[M]: no size for M (known: [N])"},
		{"derived zero", &graph.Spec{Name: "p", Signature: "x[N] -> y[M]", Derive: func(d graph.Dims) error { d["M"] = 0; return nil }}, []graph.Shape{{6}}, "p: y[M]: 0 is no size for M"},
		{"too large", &graph.Spec{Name: "p", Signature: "x[N] -> y[N N N]"}, []graph.Shape{{1 << 20}}, "too many elements"},
		{"huge", &graph.Spec{Name: "p", Signature: "x[N] -> y[N*N*N*N]"}, []graph.Shape{{1 << 30}}, "is no size for N"},
		{"refused", &graph.Spec{Name: "p", Signature: "x[N] ->", Derive: func(graph.Dims) error { return errors.New("N is odd") }}, []graph.Shape{{3}}, "p: N is odd"},
		{"signature", &graph.Spec{Name: "p", Signature: "x[N]"}, nil, `p: signature "x[N]": no ->`},
		{"in place, no such input", &graph.Spec{Name: "p", Signature: "x[N] -> y[N]", InPlace: []int{1}}, []graph.Shape{{3}}, "p: InPlace input 1 does not"},
		{"in place, other shape", &graph.Spec{Name: "p", Signature: "x[N] -> y[N 1]", InPlace: []int{0}}, []graph.Shape{{3}}, "p: InPlace input 0 does not"},
		{"in place, other type", &graph.Spec{Name: "p", Signature: "x:i32[N] -> y[N]", InPlace: []int{0}}, []graph.Shape{{3}}, "p: InPlace input 0 does not"},
	} {
		_, err := c.spec.Resolve(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestShape(t *testing.T) {
	for _, c := range []struct {
		s                graph.Shape
		size, rows, cols int
		text             string
	}{
		{nil, 1, 1, 1, "[]"},
		{graph.Shape{5}, 5, 1, 5, "[5]"},
		{graph.Shape{2, 3, 4}, 24, 6, 4, "[2 3 4]"},
	} {
		if c.s.Size() != c.size || c.s.Rows() != c.rows || c.s.Cols() != c.cols || c.s.String() != c.text {
			t.Errorf("%v: size %d, rows %d, cols %d", c.s, c.s.Size(), c.s.Rows(), c.s.Cols())
		}
	}
}
