package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/data"
)

// TestExportRoundTrip: an exported model contains the checkpoint's tensors, bit for bit, and the
// tokenizer's files.
func TestExportRoundTrip(t *testing.T) {
	dir := workspace(t, 4, 2)
	reference(t, dir)
	if e := start(t, dir, "export", "ref", "--out", "model"); e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	out := filepath.Join(dir, "model")
	exported, err := safetensors.OpenSet(filepath.Join(out, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer exported.Close()
	newest, _, err := checkpoint.Newest(filepath.Join(dir, "ref"))
	if err != nil {
		t.Fatal(err)
	}
	// ReadModel rejects missing tensors, additional ones and different shapes.
	var saved []checkpoint.Tensor
	for _, e := range exported.Entries() {
		saved = append(saved, checkpoint.Tensor{Name: e.Name, Shape: e.Shape, Data: make([]float32, e.Bytes()/4)})
	}
	if err := newest.ReadModel(saved); err != nil {
		t.Fatal(err)
	}
	for _, want := range saved {
		got := make([]float32, len(want.Data))
		if err := exported.ReadAsFloat32(want.Name, got); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want.Data, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Errorf("%s differs", want.Name)
		}
	}
	config := read(t, filepath.Join(out, "config.json"))
	if len(saved) == 0 || !bytes.Contains(config, []byte(`"d_model": 16`)) {
		t.Errorf("%d tensors, config\n%s", len(saved), config)
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
