package cpu_test

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

// counter adds 1 to each row's state and returns it.
func counter(t *testing.T, rows, width int) *graph.Plan {
	t.Helper()
	b := graph.NewBuilder(add.Spec)
	s := &graph.Spec{Name: "counter", Signature: "x:i32[1], s![B W] -> y[B W]", CPU: func(c *graph.CPUCall) func() {
		return func() {
			for r := range c.In[1].Rows {
				for i := range c.In[1].Row(r) {
					c.In[1].Row(r)[i]++
					c.Out[0].Row(r)[i] = c.In[1].Row(r)[i]
				}
			}
		}
	}}
	b.Result("y", b.Apply(s, b.Input("x", graph.Int32, 1), b.State("s", rows, width)))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStatesGoOn: programs loaded beside each other share states, and a text moves between
// programs, including to one with more capacity.
func TestStatesGoOn(t *testing.T) {
	d := open(t, 1)
	load := func(p graph.Program, err error) graph.Program {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(p graph.Program, n int) []float32 {
		t.Helper()
		if err := p.Run(); err != nil {
			t.Fatal(err)
		}
		y := make([]float32, n)
		if err := p.Read("y", y); err != nil {
			t.Fatal(err)
		}
		return y
	}
	first := load(d.Load(counter(t, 2, 3), nil))
	beside := load(d.LoadBeside(counter(t, 2, 3), nil, first))
	run(first, 6)
	if got := run(beside, 6); got[0] != 2 || got[5] != 2 {
		t.Errorf("the second program gives %v, want 2 everywhere", got)
	}
	other := load(d.Load(counter(t, 3, 5), nil))
	if err := other.TakeState(2, first, 1); err != nil {
		t.Fatal(err)
	}
	if got, want := run(other, 15), []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	wantError(t, "no such row", other.TakeState(3, first, 0), "cpu: state s: no row 3 of 3")
	if err := first.TakeState(1, other, 2); err != nil {
		t.Fatal(err)
	}
	if got, want := run(first, 6), []float32{3, 3, 3, 4, 4, 4}; !slices.Equal(got, want) {
		t.Errorf("of a wider state: %v, want %v", got, want)
	}
	_, err := d.LoadBeside(counter(t, 2, 4), nil, first)
	wantError(t, "other states", err, "cpu: state s is")
	another := open(t, 1)
	_, err = another.LoadBeside(counter(t, 2, 3), nil, first)
	wantError(t, "another device's program", err, "cpu: the other program belongs to another device")
	if err := beside.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, "a closed program", beside.Run(), "cpu: the program is closed")
	if got := run(first, 6); got[0] != 4 {
		t.Errorf("after the other was closed: %v", got)
	}
}
