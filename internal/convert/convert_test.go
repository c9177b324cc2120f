package convert

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/layers"
)

// parse reads a model section on top of small sizes.
func parse(t *testing.T, text string) *layers.Model {
	t.Helper()
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.Attention.Window = 272, 32, 256, 12
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	return &m
}

// parameters returns a model's parameters, drawn at random.
func parameters(t *testing.T, m *layers.Model, seed uint64) []checkpoint.Tensor {
	t.Helper()
	plan, err := generate.Plan(m, 1, 1, 1, layers.Precision{})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	var list []checkpoint.Tensor
	for _, p := range plan.Params {
		x := make([]float32, p.Shape.Size())
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		list = append(list, checkpoint.Tensor{Name: p.Name, Shape: p.Shape, Data: x})
	}
	return list
}

// source returns a model with random parameters.
func source(t *testing.T, m *layers.Model) (*Source, []checkpoint.Tensor) {
	t.Helper()
	dir := t.TempDir()
	run, err := checkpoint.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer run.Unlock()
	list := parameters(t, m, 1)
	if _, err := run.Save(checkpoint.State{Step: 7, RecipeSHA256: checkpoint.RecipeSHA256(nil)}, list, nil); err != nil {
		t.Fatal(err)
	}
	c, _, err := checkpoint.Newest(dir)
	if err != nil {
		t.Fatal(err)
	}
	set, err := c.OpenModel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	tok, err := data.NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	return &Source{Name: "test", Model: m, Parameters: set, Tokenizer: tok, SeqLen: 64, Step: 7, CodeVersion: "v1"}, list
}

func options(f Format) Options { return Options{Format: f, DType: Float32, MaxShard: DefaultMaxShard} }

// exportTo writes a model and returns its folder.
func exportTo(t *testing.T, s *Source, o Options) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := Export(s, dir, o); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *Imported {
	t.Helper()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// readLike reads an imported model's parameters, which must be as many as in `like`.
func readLike(t *testing.T, x *Imported, like []checkpoint.Tensor) []checkpoint.Tensor {
	t.Helper()
	got := parameters(t, x.Model, 2)
	if len(got) != len(like) {
		t.Fatalf("%d parameters, want %d", len(got), len(like))
	}
	if err := x.Read(got); err != nil {
		t.Fatal(err)
	}
	return got
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error is %q, want it to say %q", err, p)
		}
	}
}

var families = []struct{ name, class, model string }{
	{"mamba", "MambaForCausalLM", "layers: {pattern: [mamba], repeat: 3}"},
	{"untied mamba", "MambaForCausalLM", "{tie_embeddings: false, layers: {pattern: [mamba], repeat: 2}, mamba: {expand: 1.5, d_state: 8, d_conv: 3, dt_rank: 5}}"},
	{"llama", "LlamaForCausalLM", "{layers: {pattern: [attn, mlp], repeat: 2}, mlp: {d_ff: 82}}"},
	{"untied llama", "LlamaForCausalLM", "{tie_embeddings: false, norm_eps: 1e-6, layers: {pattern: [attn, mlp], repeat: 2}, attention: {heads: 4, kv_heads: 1, head_dim: 16, rope_base: 500000}}"},
	{"mistral", "MistralForCausalLM", "layers: {pattern: [swa, mlp], repeat: 2}"},
	{"samba", "SambaForCausalLM", "layers: {pattern: [mamba, mlp, swa, mlp], repeat: 2}"},
	{"attention everywhere else", "SambaForCausalLM", "{d_model: 48, layers: {pattern: [mamba, mlp, mamba, mlp, attn, mlp]}, mlp: {d_ff: 768}, attention: {kv_heads: 2}}"},
	{"mamba and mlps", "SambaForCausalLM", "{tie_embeddings: false, layers: {pattern: [mamba, mlp], repeat: 2}}"},
}

// TestRoundTrip: a model that is exported for another program and imported again is the same, bit
// for bit, in one file or in shards.
func TestRoundTrip(t *testing.T) {
	for _, f := range families {
		for _, shard := range []int64{DefaultMaxShard, 10_000} {
			t.Run(fmt.Sprint(f.name, " ", shard), func(t *testing.T) {
				s, want := source(t, parse(t, f.model))
				o := options(HF)
				o.MaxShard = shard
				dir := exportTo(t, s, o)
				if _, err := os.Stat(filepath.Join(dir, indexFile)); (err == nil) != (shard < DefaultMaxShard) {
					t.Errorf("the index: %v", err)
				}
				x := open(t, dir)
				if x.Class != f.class {
					t.Errorf("class %s, want %s", x.Class, f.class)
				}
				for i, got := range readLike(t, x, want) {
					if got.Name != want[i].Name || !slices.Equal(got.Shape, want[i].Shape) || !slices.EqualFunc(got.Data, want[i].Data, sameBits) {
						t.Errorf("%s differs", want[i].Name)
					}
				}
				// A config stores the rank as a number.
				s.Model.Mamba.DTRank = layers.Auto(s.Model.Mamba.DTRank.Or((s.Model.DModel + 15) / 16))
				one, err1 := s.Model.Sublayers()
				two, err2 := x.Model.Sublayers()
				if err1 != nil || err2 != nil || fmt.Sprint(one) != fmt.Sprint(two) || x.Model.NormEps != s.Model.NormEps || x.Model.TieEmbeddings != s.Model.TieEmbeddings {
					t.Errorf("imported %+v, exported %+v", two, one)
				}
				if same, err := x.SameTokenizer(s.Tokenizer.ExportFiles()); err != nil || !same {
					t.Error("the tokenizer differs: ", err)
				}
			})
		}
	}
}

// TestGGUFFileType: general.file_type is llama.cpp's number of the type of most tensors.
func TestGGUFFileType(t *testing.T) {
	for dtype, want := range map[DType]uint32{Float32: 0, Float16: 1, Q8_0: 7, BFloat16: 32} {
		s, _ := source(t, parse(t, "{layers: {pattern: [attn, mlp]}, mlp: {d_ff: 96}}"))
		o := options(GGUF)
		o.DType = dtype
		b, err := os.ReadFile(filepath.Join(exportTo(t, s, o), ggufFile))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := bytes.Cut(b, []byte("general.file_type"))
		if !found {
			t.Fatalf("%s: no general.file_type", dtype)
		}
		const uint32Type = 4
		if kind, got := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:]); kind != uint32Type || got != want {
			t.Errorf("%s: type %d, value %d; want %d", dtype, kind, got, want)
		}
	}
}

// TestOwnRoundTrip: the same for exports in this program's own format, of any model.
func TestOwnRoundTrip(t *testing.T) {
	for _, model := range []string{
		"layers: {pattern: [mamba, {mlp: {d_ff: 40}}, swa, attn], repeat: 2}",
		"{tie_embeddings: false, layers: {pattern: [gla, mlp, retention, mega]}, mamba: {dt_rank: 5}}",
	} {
		s, want := source(t, parse(t, model))
		x := open(t, exportTo(t, s, options(Safetensors)))
		for i, got := range readLike(t, x, want) {
			if got.Name != want[i].Name || !slices.EqualFunc(got.Data, want[i].Data, sameBits) {
				t.Errorf("%s: %s differs", model, want[i].Name)
			}
		}
		if same, err := x.SameTokenizer(s.Tokenizer.ExportFiles()); fmt.Sprint(*x.Model) != fmt.Sprint(*s.Model) || err != nil || !same {
			t.Errorf("imported %+v, exported %+v, %v", x.Model, s.Model, err)
		}
	}
}

// TestRounded: an export with fewer bits has each weight rounded to nearest even.
func TestRounded(t *testing.T) {
	s, want := source(t, parse(t, "layers: {pattern: [mamba]}"))
	for d, bits := range map[DType]int{BFloat16: 8, Float16: 11} {
		o := options(HF)
		o.DType = d
		x := open(t, exportTo(t, s, o))
		for i, got := range readLike(t, x, want) {
			for j, v := range got.Data {
				exact := float64(want[i].Data[j])
				if half := math.Ldexp(1, max(math.Ilogb(exact), -14)-bits); !(math.Abs(float64(v)-exact) <= half) {
					t.Fatalf("%s: %s at %d is %v, was %v", d, got.Name, j, v, exact)
				}
			}
		}
	}
}

func TestTooLargeForFloat16(t *testing.T) {
	s, _ := source(t, parse(t, "layers: {pattern: [mamba]}"))
	big := tensor{name: "big", shape: []int{1}, parts: []string{"model.norm_f.weight"}, make: func([][]float32) []float32 { return []float32{70000} }}
	o := options(HF)
	o.DType = Float16
	_, err := checkpoint.WriteFolder(filepath.Join(t.TempDir(), "x"), []checkpoint.File{s.weights(weightsFile, []tensor{big}, o)})
	wantError(t, err, `tensor "big": 70000 is beyond float16's largest number`)
}

// TestRefused: a model that a format can't represent is refused with the reason, and leaves no
// files behind.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		format Format
		model  string
		want   string
	}{
		{HF, "{d_model: 48, layers: {pattern: [mamba, mlp, swa, mlp]}, mlp: {d_ff: 8196}}", "an MLP's width is a multiple of 256; this model's is 8196 (d_ff)"},
		{HF, "{layers: {pattern: [mamba, mlp, swa, mlp]}, attention: {rope_base: 0}}", "SambaForCausalLM always has rotary positions; this model has none (rope_base: 0)"},
		{HF, "{layers: {pattern: [attn, mlp]}, attention: {rope_base: 0}}", "LlamaForCausalLM always has rotary positions"},
		{HF, "layers: {pattern: [mamba, swa, mlp]}", "SambaForCausalLM: blocks are a mixer and an mlp; at sublayer 0 this model has something else (mamba)"},
		{HF, "layers: {pattern: [{mlp: {d_ff: 64}}, mlp, swa, mlp]}", "blocks are a mixer and an mlp; at sublayer 0 this model has something else (mlp)"},
		{HF, "{layers: {pattern: [mamba, mlp, swa, mlp]}, attention: {head_dim: 16}}", "heads are d_model / heads wide, 8; this model's are 16"},
		{HF, "layers: {pattern: [swa, mlp, {swa: {window: 5}}, mlp]}", "attention's settings must be the same in all layers"},
		{HF, "layers: {pattern: [attn, mlp, attn, {mlp: {d_ff: 3}}]}", "d_ff must be the same in all layers"},
		{HF, "layers: {pattern: [mamba, {mamba: {d_state: 3}}]}", "mamba's settings must be the same in all layers"},
		{HF, "layers: {pattern: [gla, mlp, swa, mlp]}", "none of MambaForCausalLM, LlamaForCausalLM, MistralForCausalLM and SambaForCausalLM has gla"},
		{HF, "layers: {pattern: [mega, mlp]}", "SambaForCausalLM has mega"},
		{SambaPth, "layers: {pattern: [mega, mlp]}", "a buffer of Mega's position bias"},
		{SambaPth, "layers: {pattern: [mlp, mamba]}", "at sublayer 1 this model has something else (mamba)"},
		{SambaPth, "layers: {pattern: [mamba, swa, mlp, mamba]}", "something else"},
		{GGUF, "layers: {pattern: [mamba, mlp, swa, mlp]}", "llama.cpp has no architecture for a stack of mamba, mlp, swa"},
		{GGUF, "layers: {pattern: [mamba, mlp]}", "llama.cpp has no architecture for a stack of mamba, mlp"},
		{GGUF, "layers: {pattern: [swa, mlp]}", "llama.cpp's llama has no sliding window"},
		{GGUF, "{layers: {pattern: [mamba]}, mamba: {expand: 3}}", "twice as wide inside; this model's expand is 3"},
		{GGUF, "{layers: {pattern: [attn, mlp]}, attention: {rope_base: 0}}", "llama.cpp's llama always has rotary positions"},
	} {
		t.Run(string(c.format)+" "+c.model, func(t *testing.T) {
			s, _ := source(t, parse(t, c.model))
			dir := filepath.Join(t.TempDir(), "model")
			_, err := Export(s, dir, options(c.format))
			wantError(t, err, "export to "+dir+": format "+string(c.format)+": ", c.want)
			if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestOtherParameters: a checkpoint that isn't of the model that it is to be exported as.
func TestOtherParameters(t *testing.T) {
	s, _ := source(t, parse(t, "layers: {pattern: [attn, mlp]}"))
	for model, want := range map[string]string{
		"layers: {pattern: [mamba]}":                        `"model.layers.0.mixer.A_log" (and 8 more) are in this run but not in the checkpoint`,
		"layers: {pattern: [attn, mlp], repeat: 2}":         "in this run but not in the checkpoint",
		"{layers: {pattern: [attn, mlp]}, d_model: 48}":     "shape is [",
		"{layers: {pattern: [attn]}, tie_embeddings: true}": "in the checkpoint but not in this run",
	} {
		s.Model = parse(t, model)
		for _, f := range Formats {
			dir := filepath.Join(t.TempDir(), "out")
			_, err := Export(s, dir, options(f))
			wantError(t, err, "export to "+dir+": ", want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{"pickle", Float32, 1}, `format: must be one of safetensors, hf, samba-pth-names, gguf, is "pickle"`},
		{Options{HF, "int8", 1}, "dtype: must be one of"},
		{Options{HF, Q8_0, 1}, "dtype: q8_0 is for format gguf alone"},
		{Options{HF, Float32, 0}, "max-shard-size: must be at least 1 byte"},
	} {
		wantError(t, c.o.Validate(), c.want)
	}
}

// TestPaperSizes: the class's MLPs are as wide as the paper's where possible.
func TestPaperSizes(t *testing.T) {
	for _, c := range []struct {
		d, dff int
		want   float64
	}{{1536, 4096, 4}, {2304, 6144, 4}, {2816, 9984, 0}, {1536, 4608, 0}} {
		ratio, err := hiddenRatio(c.d, c.dff)
		if err != nil || gatedWidth(c.d, ratio) != c.dff || c.want != 0 && ratio != c.want {
			t.Errorf("d_model %d, d_ff %d: ratio %v (%v)", c.d, c.dff, ratio, err)
		}
	}
	if _, err := hiddenRatio(2048, 8196); err == nil {
		t.Error("a width of 8196 is no error")
	}
}

// TestPthNames: the names of each kind of block are those of the paper's code.
func TestPthNames(t *testing.T) {
	const ends = "lm_head.weight transformer.ln_f.weight transformer.wte.weight"
	mamba := func(at string) string {
		return at + strings.Join([]string{"A_log", "D", "conv1d.bias", "conv1d.weight", "dt_proj.bias", "dt_proj.weight", "in_proj.weight", "out_proj.weight", "x_proj.weight"}, " "+at)
	}
	mlp := func(at string) string { return at + "w1.weight " + at + "w2.weight " + at + "w3.weight" }
	for _, c := range []struct{ model, want string }{
		{"layers: {pattern: [mamba]}", "transformer.h.0.norm.weight " + mamba("transformer.h.0.mixer.")},
		{"layers: {pattern: [swa, mlp]}", "transformer.h.0.norm_1.weight transformer.h.0.attn.attn.weight transformer.h.0.attn.proj.weight transformer.h.0.norm_2.weight " + mlp("transformer.h.0.mlp.swiglu.")},
		{"layers: {pattern: [mamba, mlp]}", "transformer.h.0.norm_1.weight transformer.h.0.norm_2.weight " + mamba("transformer.h.0.attn.") + " " + mlp("transformer.h.0.mlp.swiglu.")},
		{"layers: {pattern: [{mlp: {d_ff: 64}}, mlp]}", "transformer.h.0.norm_1.weight transformer.h.0.norm_2.weight " + mlp("transformer.h.0.attn.swiglu.") + " " + mlp("transformer.h.0.mlp.swiglu.")},
		{"layers: {pattern: [mamba, swa, mlp]}", "transformer.h.0.norm_m.weight transformer.h.0.norm_attn.weight transformer.h.0.norm_2.weight transformer.h.0.attn.attn.weight transformer.h.0.attn.proj.weight " +
			mamba("transformer.h.0.mb.") + " " + mlp("transformer.h.0.mlp.swiglu.")},
		{"layers: {pattern: [retention, mlp]}", "transformer.h.0.norm_1.weight transformer.h.0.norm_2.weight transformer.h.0.attn.g_norm_swish_gate.weight transformer.h.0.attn.g_proj.weight transformer.h.0.attn.k_proj.weight " +
			"transformer.h.0.attn.o_proj.weight transformer.h.0.attn.q_proj.weight transformer.h.0.attn.v_proj.weight " + mlp("transformer.h.0.mlp.swiglu.")},
	} {
		s, _ := source(t, parse(t, c.model))
		set, err := safetensors.OpenSet(filepath.Join(exportTo(t, s, options(SambaPth)), weightsFile))
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		var got []string
		for _, e := range set.Entries() {
			got = append(got, e.Name)
		}
		want := strings.Fields(ends + " " + c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", c.model, got, want)
		}
	}
}

// TestFuse: the order of rows is, for each key head, its query heads, the key head, and its values.
func TestFuse(t *testing.T) {
	a := layers.Attention{Heads: 4, KVHeads: 2, HeadDim: 1}
	got := fuse(a, 2, [][]float32{{0, 0, 1, 1, 2, 2, 3, 3}, {10, 10, 11, 11}, {20, 20, 21, 21}})
	if want := []float32{0, 0, 1, 1, 10, 10, 20, 20, 2, 2, 3, 3, 11, 11, 21, 21}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestInterleaved: rows i and i+headDim/2 of a head become neighbors.
func TestInterleaved(t *testing.T) {
	got := interleaved([]float32{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}, 4, 2)
	if want := []float32{0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestConfigKeys checks the keys that loaders need against what they mean.
func TestConfigKeys(t *testing.T) {
	s, _ := source(t, parse(t, "{layers: {pattern: [mamba, mlp, swa, mlp], repeat: 2}, mlp: {d_ff: 512}, attention: {heads: 4, kv_heads: 2}}"))
	text, err := os.ReadFile(filepath.Join(exportTo(t, s, options(HF)), configFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"model_type": `"samba"`, "architectures": `["SambaForCausalLM"]`, "num_hidden_layers": "4", "hidden_ratio": "24", "tie_word_embeddings": "true",
		"time_step_rank": "2", "intermediate_size": "64", "eos_token_id": "256", "dtype": `"float32"`, "use_bias": "false", "use_conv_bias": "true",
		"attn": `{"layers":[1,3],"num_heads":4,"num_kv_heads":2,"qkv_bias":false,"rope_theta":10000,"window_size":12}`,
	} {
		if value, err := json.Marshal(got[key]); err != nil || string(value) != want {
			t.Errorf("%s is %s, want %s", key, value, want)
		}
	}
	if !strings.Contains(string(text), `"rope_theta": 10000.0,`) && !strings.Contains(string(text), `"rope_theta": 10000.0`+"\n") {
		t.Errorf("rope_theta is no decimal:\n%s", text)
	}
}
