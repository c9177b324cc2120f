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

// TestNamesAndShapes: parameters are called as the reference program calls them, and
// have its shapes, for every mixer.
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

// model is one of the paper's: vocabulary, width, MLP width, heads, key/value heads.
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

// TestPapersSizes: parameter counts of models that the paper and its code name.
func TestPapersSizes(t *testing.T) {
	const samba, llama = "mamba mlp swa mlp", "attn mlp"
	mlp2 := model("mlp mlp swa mlp", 6, 32000, 1536, 4096, 12, 12, true)
	mlp2.Layers.Pattern[0].Settings = map[string]any{"d_ff": 3072}
	fullAt5 := model(strings.Repeat("mamba mlp ", 5)+"attn mlp "+strings.Repeat("mamba mlp ", 6), 1, 32000, 1536, 4096, 12, 12, true)
	nope := model(samba, 6, 32000, 1536, 4096, 12, 12, true)
	nope.Attention.RopeBase = 0
	for name, c := range map[string]struct {
		m                   *layers.Model
		total, nonEmbedding int
	}{
		"Samba 421M":          {model(samba, 6, 32000, 1536, 4096, 12, 12, true), 421_793_280, 372_641_280},
		"Samba 421M NoPE":     {nope, 421_793_280, 372_641_280},
		"Samba 421M MQA":      {model(samba, 6, 32000, 1536, 4608, 12, 1, true), 424_152_576, 375_000_576},
		"Samba 421M GQA2":     {model(samba, 6, 32000, 1536, 4608, 12, 2, true), 426_511_872, 377_359_872},
		"Samba 421M GQA4":     {model(samba, 6, 32000, 1536, 4608, 12, 4, true), 431_230_464, 382_078_464},
		"Samba 1.3B":          {model(samba, 9, 32000, 2304, 6144, 18, 0, true), 1_330_207_488, 1_256_479_488},
		"Samba 1.7B":          {model(samba, 12, 50304, 2048, 8196, 32, 4, true), 1_742_194_688, 1_639_172_096},
		"Samba 3.8B":          {model(samba, 16, 32064, 2816, 9984, 11, 1, true), 3_864_275_712, 3_773_983_488},
		"MLP2-SWA-MLP 417M":   {mlp2, 417_240_576, 368_088_576},
		"full attention at 5": {fullAt5, 449_180_160, 400_028_160},
		"Mamba-SWA-MLP 400M":  {model("mamba swa mlp", 8, 32000, 1536, 4096, 12, 12, true), 394_999_296, 345_847_296},
		"Mamba-SWA-MLP 1.6B":  {model("mamba swa mlp", 18, 50304, 2048, 8196, 32, 4, true), 1_655_330_816, 1_552_308_224},
		"Mamba-MLP 1.9B":      {model("mamba mlp", 24, 50304, 2048, 8196, 32, 4, true), 1_946_224_640, 1_843_202_048},
		"Mamba 432M":          {model("mamba", 60, 32000, 1024, 0, 1, 0, true), 432_804_864, 400_036_864},
		"Mamba 1.8B, untied":  {model("mamba", 64, 50304, 2048, 0, 1, 0, false), 1_898_317_824, 1_692_272_640},
		"Llama 438M":          {model(llama, 12, 32000, 1536, 4096, 12, 12, false), 438_081_024, 339_777_024},
		"Llama 438M GQA4":     {model("swa mlp", 12, 32000, 1536, 4608, 12, 4, false), 428_643_840, 330_339_840},
		"Llama 1.3B":          {model(llama, 20, 32000, 2304, 6144, 18, 18, true), 1_347_842_304, 1_274_114_304},
		"Mega-S6 422M":        {model("mega mlp", 12, 32000, 1536, 4096, 1, 0, true), 422_486_016, 373_334_016},
		"Mega-S6 1.3B":        {model("mega mlp", 18, 32000, 2304, 6144, 1, 0, true), 1_329_767_424, 1_256_039_424},
		"Llama-3 1.6B":        {model(llama, 24, 50304, 2048, 8196, 32, 4, false), 1_641_187_328, 1_435_142_144},
	} {
		total, embedding := 0, 0
		for _, p := range params(t, c.m) {
			total += p.Shape.Size()
			if p.Name == "model.embeddings.weight" || p.Name == "lm_head.weight" {
				embedding += p.Shape.Size()
			}
		}
		if total != c.total || total-embedding != c.nonEmbedding {
			t.Errorf("%s has %d parameters, %d without embeddings; want %d, %d", name, total, total-embedding, c.total, c.nonEmbedding)
		}
	}
}

// TestTiedEmbeddings: the head is the embedding's weight, or one of its own.
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
