package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
)

// outcome is everything of a finished run that must not depend on how often it was stopped.
type outcome struct {
	step             int64
	model, optimizer []byte   // the final checkpoint's files
	computed         []string // the training and validation records, without clocks
	sample           []byte
}

func outcomeOf(t *testing.T, dir string) outcome {
	t.Helper()
	c, skipped, err := checkpoint.Newest(dir)
	if err != nil || len(skipped) > 0 {
		t.Fatal(skipped, err)
	}
	return outcome{
		step:      c.Step,
		model:     read(t, filepath.Join(c.Dir, "model.safetensors")),
		optimizer: read(t, filepath.Join(c.Dir, "optimizer.safetensors")),
		computed:  computed(t, dir),
		sample:    read(t, filepath.Join(dir, train.SampleFile)),
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// records returns the records of a run's metrics, none of which may be incomplete.
func records(t *testing.T, dir string) []runlog.Record {
	t.Helper()
	list, torn, err := runlog.Read(filepath.Join(dir, train.MetricsFile))
	if err != nil || torn != nil {
		t.Fatal(torn, err)
	}
	return list
}

func computed(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	for _, r := range records(t, dir) {
		if r.Kind != runlog.KindEvent {
			list = append(list, r.Computed())
		}
	}
	return list
}

// lastStep returns the last recorded training step.
func lastStep(t *testing.T, dir string) int {
	t.Helper()
	for _, r := range slices.Backward(records(t, dir)) {
		if r.Kind == runlog.KindTrain {
			return r.Step
		}
	}
	return 0
}

// mustEqual compares a run with an uninterrupted one.
func mustEqual(t *testing.T, got, want outcome) {
	t.Helper()
	if got.step != want.step {
		t.Errorf("ended at step %d, want %d", got.step, want.step)
	}
	if !bytes.Equal(got.model, want.model) {
		t.Error("the parameters differ")
	}
	if !bytes.Equal(got.optimizer, want.optimizer) {
		t.Error("the moments differ")
	}
	if !bytes.Equal(got.sample, want.sample) {
		t.Errorf("the sample is %q, want %q", got.sample, want.sample)
	}
	if len(got.computed) != len(want.computed) {
		t.Errorf("%d training and validation records, want %d", len(got.computed), len(want.computed))
	}
	for i := range min(len(got.computed), len(want.computed)) {
		if got.computed[i] != want.computed[i] {
			t.Errorf("record %d is\n%s, want\n%s", i, got.computed[i], want.computed[i])
			break
		}
	}
}

// reference makes an uninterrupted run in dir/ref.
func reference(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	e := start(t, dir, slices.Concat([]string{"pretrain", "tiny.yaml", "--out", "ref"}, args)...)
	if e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	want := outcomeOf(t, filepath.Join(dir, "ref"))
	// What is compared must not be empty.
	if len(want.computed) < int(want.step) || len(want.model) == 0 || len(want.optimizer) < len(want.model) {
		t.Fatalf("the reference has %d records and %d + %d bytes", len(want.computed), len(want.model), len(want.optimizer))
	}
	return want
}

// copyRun copies a run directory.
func copyRun(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// unfinished returns the traces of a save or removal in progress.
func unfinished(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "checkpoints", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
