package cpu_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

// TestFail: every way to run a program reports a failed kernel, once.
func TestFail(t *testing.T) {
	lost := errors.New("the others are lost")
	failing := true
	b := graph.NewBuilder(add.Spec)
	b.Result("y", b.Apply(&graph.Spec{Name: "call", Signature: "x[N] -> y[N]", CPU: func(c *graph.CPUCall) func() {
		return func() {
			if failing {
				c.Fail(lost)
			}
		}
	}}, b.Input("x", graph.Float32, 1)))
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	prog, err := open(t, 1).Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	times := make([]time.Duration, len(plan.Steps))
	traced := func() error { _, err := prog.(graph.Tracer).RunTraced(); return err }
	for name, run := range map[string]func() error{
		"Run": prog.Run, "RunTimed": func() error { return prog.RunTimed(times) }, "RunTraced": traced,
	} {
		failing = true
		if err := run(); !errors.Is(err, lost) {
			t.Errorf("%s: error is %v, want %v", name, err, lost)
		}
		failing = false
		if err := run(); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
	if err := prog.Close(); err != nil {
		t.Fatal(err)
	}
	if err := traced(); err == nil {
		t.Error("RunTraced runs a closed program")
	}
}
