package cpu_test

import (
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

// TestRunTraced: tasks that wait for each other appear on all workers at once, a kernel without
// tasks only on worker 0, and the result is that of Run.
func TestRunTraced(t *testing.T) {
	const workers = 3
	dev := open(t, workers)
	b := graph.NewBuilder(add.Spec)
	meet := make(chan struct{})
	pair := &graph.Spec{Name: "pair", Signature: "x[B T N] -> y[B T N]", CPU: func(c *graph.CPUCall) func() {
		task := func(i, _ int) {
			if i == 0 {
				meet <- struct{}{}
			} else {
				<-meet
			}
			c.Out[0].F32[i] = c.In[0].F32[i] + 1
		}
		return func() { c.Pool.Run(2, task) }
	}}
	const nap = 2 * time.Millisecond
	alone := &graph.Spec{Name: "alone", Signature: "x[B T N] -> y[B T N]", CPU: func(c *graph.CPUCall) func() {
		return func() {
			time.Sleep(nap)
			copy(c.Out[0].F32, c.In[0].F32)
		}
	}}
	b.Result("y", b.Apply(alone, b.Apply(pair, b.Input("x", graph.Float32, 1, 1, 2))))
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := prog.WriteFloats("x", []float32{1, 2}); err != nil {
		t.Fatal(err)
	}
	spans, err := prog.(graph.Tracer).RunTraced()
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, 2)
	if err := prog.Read("y", y); err != nil || y[0] != 2 || y[1] != 3 {
		t.Errorf("y is %v, %v", y, err)
	}
	busy := map[int]map[int]time.Duration{0: {}, 1: {}} // by step and worker
	last := graph.Span{}
	for _, s := range spans {
		if s.Start > s.End || s.Worker < last.Worker || s.Worker == last.Worker && s.Start < last.End {
			t.Errorf("%+v comes after %+v", s, last)
		}
		busy[s.Step][s.Worker] += s.End - s.Start
		last = s
	}
	if n := len(busy[0]); n != 2 {
		t.Errorf("two tasks that meet ran on %d workers: %v", n, spans)
	}
	if len(busy[1]) != 1 || busy[1][0] < nap {
		t.Errorf("a kernel without tasks is not worker 0's: %v", spans)
	}

	dev.Close()
	_, err = prog.(graph.Tracer).RunTraced()
	wantError(t, "closed", err, cpu.ErrClosed.Error())
}
