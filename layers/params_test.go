package layers_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// TestNamesAndShapes: parameters have the names and shapes of the reference program, for every
// mixer.
func TestNamesAndShapes(t *testing.T) {
	files, err := filepath.Glob("../internal/verify/testdata/*.safetensors")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".safetensors"), func(t *testing.T) {
			f, err := safetensors.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := layers.Defaults()
			err = yaml.UnmarshalWithOptions([]byte(f.Metadata()["model"]), &m, yaml.Strict())
			if err != nil {
				t.Fatal(err)
			}
			want, got := map[string]graph.Shape{}, map[string]graph.Shape{}
			for _, e := range f.Entries() {
				if name, ok := strings.CutPrefix(e.Name, "param."); ok {
					want[name] = e.Shape
				}
			}
			for _, p := range params(t, &m) {
				got[p.Name] = p.Shape
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("parameters (-reference +here):\n%s", diff)
			}
			for _, p := range m.Layers.Pattern {
				seen[p.Mixer] = true
			}
		})
	}
	for _, name := range layers.Mixers {
		if !seen[name] {
			t.Errorf("no fixture has mixer %s", name)
		}
	}
}

// model returns one of the paper's models, given vocabulary, width, MLP width, heads and key/value
// heads.
func model(pattern string, repeat, vocab, d, dff, heads, kv int, tied bool) *layers.Model {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.TieEmbeddings = vocab, d, dff, tied
	m.Attention.Heads, m.Attention.KVHeads, m.Attention.Window = heads, kv, 2048
	for _, name := range strings.Fields(pattern) {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Layers.Repeat = repeat
	return &m
}

// TestRanks: the derived rank of a time step's projection is rounded up.
func TestRanks(t *testing.T) {
	for d, want := range map[int][2]int{16: {1, 1}, 24: {2, 1}, 32: {2, 1}, 40: {3, 2}} {
		got := [2]int{}
		for _, p := range params(t, model("mamba mega", 1, 61, d, 48, 1, 1, true)) {
			switch p.Name {
			case "model.layers.0.mixer.dt_proj.weight":
				got[0] = p.Shape.Cols()
			case "model.layers.1.mixer.move.dt_proj.weight":
				got[1] = p.Shape.Cols()
			}
		}
		if got != want {
			t.Errorf("width %d: ranks %v of Mamba and Mega, want %v", d, got, want)
		}
	}
}

// TestTiedEmbeddings: the head uses the embedding's weight, or its own.
func TestTiedEmbeddings(t *testing.T) {
	for _, tied := range []bool{true, false} {
		heads := 0
		for _, p := range params(t, model("mlp", 1, 61, 32, 48, 4, 4, tied)) {
			if p.Name == "lm_head.weight" {
				heads++
				if !p.Shape.Equal(graph.Shape{61, 32}) {
					t.Errorf("the head is %v", p.Shape)
				}
			}
		}
		if want := map[bool]int{true: 0, false: 1}[tied]; heads != want {
			t.Errorf("tied %v: %d heads of their own, want %d", tied, heads, want)
		}
	}
}
