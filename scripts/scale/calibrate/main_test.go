package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestRun(t *testing.T) {
	var paths []string
	for i, text := range []string{
		`{"ops": [{"op": "linear", "calls": 200, "ms": 11, "gflops": 400000, "gb_per_s": 900}, {"op": "rope", "calls": 100, "ms": 1, "gflops": 2, "gb_per_s": 1000}]}`,
		`{"ops": [{"op": "linear", "calls": 0, "ms": 5, "gflops": 110000, "gb_per_s": 300}, {"op": "zero", "calls": 1, "ms": 0.001, "gflops": 0, "gb_per_s": 3}]}`,
		`{"ops": [{"op": "linear", "calls": 0, "ms": 5, "gflops": 1, "gb_per_s": 300}]}`,
		`{}`,
		"speed 56644 tokens/s\n    op  calls     ms  share   GFLOP/s    GB/s\n linear    200  11.00  20.0%  400000.0  900.0\n    rope  100  1.00  1.0%  2.0  1000.0\n",
	} {
		paths = append(paths, filepath.Join(t.TempDir(), string(rune('a'+i))))
		if err := os.WriteFile(paths[i], []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var w bytes.Buffer
	if err := run(&w, paths[:2]); err != nil {
		t.Fatal(err)
	}
	if want := "ops:\n  linear: {tflops: 220}\n  rope: {gbs: 2000}\n"; w.String() != want {
		t.Errorf("got\n%swant\n%s", w.String(), want)
	}
	w.Reset()
	if err := run(&w, paths[4:]); err != nil || w.String() != "ops:\n  linear: {tflops: 440}\n  rope: {gbs: 2000}\n" {
		t.Errorf("of a table: %v\n%s", err, w.String())
	}
	for _, bad := range [][]string{paths[1:3], paths[3:4], {"missing.json"}} {
		if err := run(&w, bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
