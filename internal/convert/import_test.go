package convert

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

// edit changes keys of a folder's config.json; nil removes a key.
func edit(t *testing.T, dir string, changes map[string]any) {
	t.Helper()
	path := filepath.Join(dir, configFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for key, value := range changes {
		if value == nil {
			delete(config, key)
		} else {
			config[key] = value
		}
	}
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

// TestConfigRefused: a config that would compute something different here is refused, naming the
// key.
func TestConfigRefused(t *testing.T) {
	const mamba, llama, samba = "layers: {pattern: [mamba]}", "layers: {pattern: [attn, mlp]}", "layers: {pattern: [mamba, mlp, swa, mlp]}"
	for _, c := range []struct {
		model   string
		changes object
		want    string
	}{
		{mamba, object{"model_type": "mamba2"}, `model_type: is "mamba2"; models of type mamba, llama, mistral, samba and sambatrain can be read`},
		{mamba, object{"model_type": nil}, `model_type: is ""`},
		{mamba, object{"use_bias": true}, "use_bias: is true"},
		{mamba, object{"use_bias": nil}, "use_bias: is true"}, // the default of the class
		{mamba, object{"use_conv_bias": false}, "use_conv_bias: is false"},
		{mamba, object{"hidden_act": "gelu"}, `hidden_act: is "gelu"; models here have silu`},
		{mamba, object{"quantization_config": object{"bits": 4}}, "quantization_config: is set"},
		{mamba, object{"hidden_size": "wide"}, "hidden_size: must be of type int, is string"},
		{mamba, object{"num_hidden_layers": 0}, "num_hidden_layers: must be 1 to 10000, is 0"},
		{llama, object{"num_hidden_layers": 0}, "num_hidden_layers: must be 1 to 10000, is 0"},
		{samba, object{"num_hidden_layers": 1 << 50}, "num_hidden_layers: must be 1 to 10000, is 1125899906842624"},
		{mamba, object{"state_size": 9999}, "it describes a model that can't be: model.mamba.d_state: must be 1 to"},
		{llama, object{"attention_bias": true}, "attention_bias: is true"},
		{llama, object{"mlp_bias": true}, "mlp_bias: is true"},
		{llama, object{"rope_scaling": object{"type": "linear", "factor": 2}}, `rope_scaling: is "linear"; rotary positions here are not scaled`},
		{llama, object{"rope_parameters": object{"rope_type": "llama3"}}, `rope_parameters: is "llama3"`},
		{llama, object{"rope_parameters": object{"partial_rotary_factor": 0.5}}, "partial_rotary_factor: is 0.5"},
		{llama, object{"rope_parameters": nil, "rope_theta": 0}, "rope_theta: must be positive, is 0"},
		{samba, object{"attnres_block_size": 4}, "attnres_block_size: is set"},
		{samba, object{"attn": object{"layers": []int{1}, "num_heads": 4, "num_kv_heads": 4, "qkv_bias": true, "window_size": 12, "rope_theta": 1e4}}, "attn.qkv_bias: is true"},
		{samba, object{"attn": object{"layers": []int{1}, "num_heads": 4, "num_kv_heads": 4}}, "attn.window_size: is missing"},
		{samba, object{"attn": object{"num_heads": 4, "num_kv_heads": 4, "window_size": 12}}, "attn.layers: is missing"},
		{samba, object{"attn": object{"layers": []int{1}, "num_heads": "four", "num_kv_heads": 4, "window_size": 12}}, "attn.num_heads: must be of type int, is string"},
		{samba, object{"attn": 4}, "attn: must be of type object, is number"},
		{mamba, object{"model_type": 7}, "model_type: must be of type string, is number"},
	} {
		s, _ := source(t, parse(t, c.model))
		dir := exportTo(t, s, options(HF))
		edit(t, dir, c.changes)
		_, err := Open(dir)
		wantError(t, err, filepath.Join(dir, configFile)+": ", c.want)
	}
}

// TestConfigSpellings: older and newer spellings of the same config.
func TestConfigSpellings(t *testing.T) {
	s, want := source(t, parse(t, "{layers: {pattern: [attn, mlp]}, attention: {rope_base: 5000}}"))
	for _, changes := range []object{
		{"rope_theta": nil},      // version 5 of Transformers
		{"rope_parameters": nil}, // version 4
		{"rope_scaling": object{"rope_type": "default"}, "eos_token_id": []int{1, 2}},
		{"head_dim": nil, "num_key_value_heads": nil, "dtype": nil, "torch_dtype": nil},
	} {
		dir := exportTo(t, s, options(HF))
		edit(t, dir, changes)
		x := open(t, dir)
		if x.Model.Attention.RopeBase != 5000 {
			t.Errorf("%v: rope base %v", changes, x.Model.Attention.RopeBase)
		}
		readLike(t, x, want)
	}
}

// TestMistralWithoutWindow: without a window, a token sees all earlier tokens.
func TestMistralWithoutWindow(t *testing.T) {
	s, want := source(t, parse(t, "layers: {pattern: [swa, mlp]}"))
	dir := exportTo(t, s, options(HF))
	config := filepath.Join(dir, configFile)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, dir, object{"sliding_window": json.RawMessage("null")})
	x := open(t, dir)
	if x.Model.Layers.Pattern[0].Mixer != "attn" {
		t.Errorf("%+v of\n%s", x.Model.Layers, text)
	}
	readLike(t, x, want)
}

// rewrite replaces the tensors in a folder's weights.
func rewrite(t *testing.T, dir string, change func(map[string][]float32, map[string][]int)) {
	t.Helper()
	path := filepath.Join(dir, weightsFile)
	set, err := safetensors.OpenSet(path)
	if err != nil {
		t.Fatal(err)
	}
	values, shapes := map[string][]float32{}, map[string][]int{}
	for _, e := range set.Entries() {
		values[e.Name], shapes[e.Name] = make([]float32, e.Bytes()/4), e.Shape
		if err := set.ReadAsFloat32(e.Name, values[e.Name]); err != nil {
			t.Fatal(err)
		}
	}
	set.Close()
	change(values, shapes)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entries []safetensors.Entry
	for name := range values {
		entries = append(entries, safetensors.Entry{Name: name, DType: safetensors.F32, Shape: shapes[name]})
	}
	w, err := safetensors.NewWriter(f, entries, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range w.Entries() {
		if err := w.WriteFloat32(e.Name, values[e.Name]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTensorsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string][]float32, map[string][]int)
		want   string // "" if it can be read
	}{
		"missing":     {func(v map[string][]float32, _ map[string][]int) { delete(v, "backbone.norm_f.weight") }, "has no tensor backbone.norm_f.weight, which is model.norm_f.weight here"},
		"additional":  {func(v map[string][]float32, s map[string][]int) { v["x"], s["x"] = []float32{1}, []int{1} }, "tensor x belongs to nothing that config.json describes"},
		"other shape": {func(v map[string][]float32, s map[string][]int) { s["backbone.norm_f.weight"] = []int{2, 16} }, "shape is [2 16], config.json says [32]"},
		"a buffer": {func(v map[string][]float32, s map[string][]int) {
			v["l.rotary_emb.inv_freq"], s["l.rotary_emb.inv_freq"] = []float32{1}, []int{1}
		}, ""},
		"no number": {func(v map[string][]float32, _ map[string][]int) { v["backbone.norm_f.weight"][3] = float32(math.NaN()) }, "model.norm_f.weight holds NaN"},
		"infinite": {func(v map[string][]float32, _ map[string][]int) {
			v["backbone.norm_f.weight"][3] = float32(math.Inf(-1))
		}, "model.norm_f.weight holds -Inf"},
		"the same head": {func(v map[string][]float32, s map[string][]int) {
			v[head], s[head] = v["backbone.embeddings.weight"], s["backbone.embeddings.weight"]
		}, ""},
		"another head": {func(v map[string][]float32, s map[string][]int) {
			v[head], s[head] = slices.Clone(v["backbone.embeddings.weight"]), s["backbone.embeddings.weight"]
			v[head][3]++
		}, "tie_word_embeddings is true, but lm_head.weight differs from the embeddings"},
	} {
		t.Run(name, func(t *testing.T) {
			s, want := source(t, parse(t, "layers: {pattern: [mamba]}"))
			dir := exportTo(t, s, options(HF))
			rewrite(t, dir, c.change)
			err := open(t, dir).Read(slices.Clone(want))
			if c.want != "" {
				wantError(t, err, dir, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOwnTensorsRefused: an export that another program reads, and one that lacks a tensor.
func TestOwnTensorsRefused(t *testing.T) {
	s, want := source(t, parse(t, "layers: {pattern: [mamba]}"))
	dir := exportTo(t, s, options(SambaPth))
	wantError(t, open(t, dir).Read(slices.Clone(want)), dir, "its tensors have the names of the paper's code, which are not read: export with --format safetensors")
	dir = exportTo(t, s, options(Safetensors))
	rewrite(t, dir, func(v map[string][]float32, _ map[string][]int) { delete(v, "model.norm_f.weight") })
	if err := open(t, dir).Read(slices.Clone(want)); err == nil || err.Error() != dir+": has no tensor model.norm_f.weight" {
		t.Error(err)
	}
}

func TestFoldersRefused(t *testing.T) {
	s, _ := source(t, parse(t, "layers: {pattern: [mamba]}"))
	dir := exportTo(t, s, options(HF))
	_, err := Open(t.TempDir())
	wantError(t, err, "holds no model of another program: it has no config.json")
	_, err = Open(filepath.Join(dir, "absent"))
	wantError(t, err, filepath.Join(dir, "absent"), "no such folder")
	weights := filepath.Join(dir, weightsFile)
	if err := os.Remove(weights); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, dir, "has no model.safetensors and no model.safetensors.index.json")
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, "pytorch_model.bin: weights in Python's pickle format are not read")
	if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(`{"weight_map": {"a": "../a"}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, `"../a" is not a file of the folder`)
	if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(`{"weight_map": {}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, indexFile+": weight_map: names no file")
	// As in a cache whose files were removed.
	if err := os.Symlink(filepath.Join(dir, "absent"), weights); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, weights, "no such file or directory")
}

// TestOriginalMamba: state-spaces/mamba's own config and names.
func TestOriginalMamba(t *testing.T) {
	s, want := source(t, parse(t, "layers: {pattern: [mamba], repeat: 2}"))
	dir := exportTo(t, s, options(HF))
	config := `{"d_model": 32, "n_layer": 2, "vocab_size": 270, "ssm_cfg": {}, "rms_norm": true, "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8}`
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	rewrite(t, dir, func(v map[string][]float32, s map[string][]int) {
		const theirs, ours = "backbone.embedding.weight", "backbone.embeddings.weight"
		v[theirs], s[theirs] = v[ours], s[ours]
		delete(v, ours)
	})
	x := open(t, dir)
	for i, got := range readLike(t, x, want) {
		if !slices.EqualFunc(got.Data, want[i].Data, sameBits) {
			t.Errorf("%s differs", got.Name)
		}
	}
}

// TestOriginalMambaDefaults: a config may leave out what MambaConfig has a default for.
func TestOriginalMambaDefaults(t *testing.T) {
	m, err := defaultOriginalMamba().model()
	if err != nil {
		t.Fatal(err)
	}
	if m.VocabSize != 50280 || m.DModel != 2560 || m.Layers.Repeat != 64 || !m.TieEmbeddings || m.Mamba.DState != 16 || m.Mamba.DConv != 4 || m.Mamba.Expand != 2 {
		t.Errorf("%+v", m)
	}
}

func TestSameTokenizer(t *testing.T) {
	s, _ := source(t, parse(t, "layers: {pattern: [mamba]}"))
	dir := exportTo(t, s, options(HF))
	files := maps.Clone(s.Tokenizer.ExportFiles())
	if same, err := open(t, dir).SameTokenizer(files); err != nil || !same {
		t.Error("its own tokenizer differs: ", err)
	}
	files["tokenizer.json"] = []byte(`{"model": {"type": "BPE"}}`)
	if same, err := open(t, dir).SameTokenizer(files); err != nil || same {
		t.Error("another tokenizer is the same: ", err)
	}
	path := filepath.Join(dir, "tokenizer.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if same, err := open(t, dir).SameTokenizer(files); err != nil || !same {
		t.Error("no tokenizer differs: ", err)
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, dir).SameTokenizer(files)
	wantError(t, err, path)
}
