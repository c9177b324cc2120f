package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
)

// TestExportRoundTrip: an exported model holds the checkpoint's tensors, bit for bit,
// and the tokenizer's files.
func TestExportRoundTrip(t *testing.T) {
	dir := workspace(t, 4, 2)
	reference(t, dir)
	if e := start(t, dir, "export", "ref", "--out", "model"); e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	out := filepath.Join(dir, "model")
	exported, err := checkpoint.LoadExport(out)
	if err != nil {
		t.Fatal(err)
	}
	newest, _, err := checkpoint.Newest(filepath.Join(dir, "ref"))
	if err != nil {
		t.Fatal(err)
	}
	// ReadModel refuses a missing tensor, an additional one and another shape.
	saved := make([]checkpoint.Tensor, len(exported.Tensors))
	for i, x := range exported.Tensors {
		saved[i] = checkpoint.Tensor{Name: x.Name, Shape: x.Shape, Data: make([]float32, len(x.Data))}
	}
	if err := newest.ReadModel(saved); err != nil {
		t.Fatal(err)
	}
	for i, x := range exported.Tensors {
		if !slices.EqualFunc(x.Data, saved[i].Data, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Errorf("%s differs", x.Name)
		}
	}
	if len(exported.Tensors) == 0 || !bytes.Contains(exported.Config, []byte(`"d_model": 16`)) {
		t.Errorf("%d tensors, config\n%s", len(exported.Tensors), exported.Config)
	}
	tok, err := data.NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range tok.ExportFiles() {
		if !bytes.Equal(read(t, filepath.Join(out, name)), text) {
			t.Errorf("%s differs from the tokenizer's", name)
		}
	}
	files, err := os.ReadDir(out)
	if err != nil || len(files) != 2+len(tok.ExportFiles()) {
		t.Errorf("the export holds %v (%v)", files, err)
	}
}
