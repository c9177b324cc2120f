package train

import (
	"log/slog"
	"math"
	"testing"

	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// TestBFloat16OnCPU: with run.dtype bfloat16 the CPU trains to losses close to those of float32 but
// not the same, with the same bits for any number of threads, and without a rounded copy of the
// weights. With float32 sublayers the losses differ again.
func TestBFloat16OnCPU(t *testing.T) {
	const rows, seq, steps = 2, 40, 4
	losses := func(dtype string, sublayers, threads int) []float64 {
		run := recipes.Defaults().Run
		run.DType, run.Threads = dtype, threads
		if err := run.Validate(); err != nil {
			t.Fatal(err)
		}
		dev, err := NewDevice(run, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		e, err := NewEngine(dev, samba(), adamw(), EngineConfig{MicroBatch: rows, SeqLen: seq, Precision: layers.Precision{Mixed: run.Mixed(), Float32Sublayers: sublayers}})
		if err != nil {
			t.Fatal(err)
		}
		if e.Precision().Mixed {
			t.Error("the engine's programs keep tensors in bfloat16")
		}
		if err := e.Init(1); err != nil {
			t.Fatal(err)
		}
		var list []float64
		for step := range int64(steps) {
			tokens, targets := batch(uint64(step), rows, seq, 61)
			loss, norm, err := e.Step(step, steps, tokens, targets)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, loss, norm)
		}
		return list
	}
	exact, rounded, threads := losses(recipes.Float32, 0, 2), losses(recipes.BFloat16, 0, 2), losses(recipes.BFloat16, 0, 1)
	some := losses(recipes.BFloat16, 3, 2)
	for i := range exact {
		if rounded[i] != threads[i] {
			t.Errorf("number %d is %v with two threads and %v with one", i, rounded[i], threads[i])
		}
		for _, got := range []float64{rounded[i], some[i]} {
			if d := math.Abs(got-exact[i]) / exact[i]; d == 0 || !(d <= 0.05) {
				t.Errorf("number %d is %v, and %v in float32", i, got, exact[i])
			}
		}
		if some[i] == rounded[i] {
			t.Errorf("number %d is %v, with sublayers in float32 or without", i, some[i])
		}
	}
}
