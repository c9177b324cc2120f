//go:build linux

package cuda

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/internal/optest"
)

// TestHost: a step may store its output in host memory if it is a result and is not used otherwise.
func TestHost(t *testing.T) {
	slot := func(offset, rows, cols int) graph.Slot {
		return graph.Slot{Region: graph.Arena, Offset: offset, Rows: rows, Cols: cols, Stride: cols, DType: graph.Float32}
	}
	a, b, half := slot(0, 2, 32), slot(64, 2, 32), slot(0, 1, 32)
	for _, c := range []struct {
		name    string
		steps   []graph.Step
		results map[string]graph.Slot
		want    string // the result that step 0 may store
	}{
		{"a result", []graph.Step{{In: []graph.Slot{b}, Out: []graph.Slot{a}}}, map[string]graph.Slot{"y": a, "z": b}, "y"},
		{"no result", []graph.Step{{Out: []graph.Slot{a}}}, map[string]graph.Slot{"z": b}, ""},
		{"no output", []graph.Step{{In: []graph.Slot{a}}}, map[string]graph.Slot{"y": a}, ""},
		{"two names", []graph.Step{{Out: []graph.Slot{a}}}, map[string]graph.Slot{"y": a, "again": a}, ""},
		{"a part", []graph.Step{{Out: []graph.Slot{a}}}, map[string]graph.Slot{"y": half}, ""},
		{"of itself", []graph.Step{{In: []graph.Slot{a}, Out: []graph.Slot{a}}}, map[string]graph.Slot{"y": a}, ""},
		{"read", []graph.Step{{Out: []graph.Slot{a}}, {In: []graph.Slot{half}, Out: []graph.Slot{b}}}, map[string]graph.Slot{"y": a}, ""},
		{"written", []graph.Step{{Out: []graph.Slot{a}}, {Out: []graph.Slot{half}}}, map[string]graph.Slot{"y": a}, ""},
		{"before", []graph.Step{{Out: []graph.Slot{a}}, {In: []graph.Slot{b}}}, map[string]graph.Slot{"y": a}, "y"},
	} {
		p := &Program{plan: &graph.Plan{Steps: c.steps, Results: c.results}, results: map[string]unsafe.Pointer{}}
		for name := range c.results {
			p.results[name] = nil
		}
		if got, _ := p.host(0); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestResults: results reach the host, copied there from device memory or stored there by the op
// itself, as products of several rows do. The latter are not rounded to bfloat16.
func TestResults(t *testing.T) {
	d := open(t)
	stored := 0
	for _, c := range linear.Cases() {
		r, err := c.Spec.ResolveDims(c.Dims)
		if err != nil {
			t.Fatal(err)
		}
		if c.Bench || c.Dims["B"]*c.Dims["T"] > graph.FewRows {
			continue
		}
		in := optest.Draw(c, r)
		variants(r, func(p precision, pad int) {
			t.Run(fmt.Sprintf("%s/%s/%s/pad %d", c.Spec.Name, c.Name, p.name, pad), func(t *testing.T) {
				plan := planCall(r, p, pad)
				out := plan.Steps[0].Out[0]
				plan.Results["y"] = out
				prog, err := d.Load(plan, nil)
				if err != nil {
					t.Fatal(err)
				}
				l := &loaded{prog.(*Program), plan.Steps[0].In, plan.Steps[0].Out}
				defer l.Close()
				seen := make([]graph.Array, len(in))
				for i, a := range in {
					seen[i] = graph.Array{Shape: a.Shape, Data: l.put(l.in[i], a.Data)}
				}
				_, want := optest.Expected(r, seen)
				if err := l.Run(); err != nil {
					t.Fatal(err)
				}
				got := make([]float32, r.Out[0].Shape.Size())
				if err := l.Read("y", got); err != nil {
					t.Fatal(err)
				}
				if l.stored["y"] {
					stored++
					p.limit /= 4
				}
				near(t, "y", got, want[0].Data, p)
				again, err := l.Result("y")
				if err != nil {
					t.Fatal(err)
				}
				if i := differ(got, again); i >= 0 {
					t.Errorf("element %d is %v to Read and %v to Result", i, got[i], again[i])
				}
			})
		})
	}
	if stored == 0 {
		t.Error("no op stored its result itself")
	}
}
