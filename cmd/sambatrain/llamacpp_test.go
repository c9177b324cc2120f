package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
)

// references names the folder of npm packages that .ci/run installs: other programs to
// open our files with.
const references = "SAMBATRAIN_REFERENCES"

// nodeScript is a script of testdata with its arguments, beside the packages it needs.
func nodeScript(t *testing.T, packages []string, script string, args ...string) *exec.Cmd {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join(os.Getenv(references), "node_modules"))
	if err != nil || os.Getenv(references) == "" {
		t.Skipf("%s is not set: see .ci/run", references)
	}
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(modules, p)); err != nil {
			t.Skipf("npm package %s is not installed in %s", p, modules)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, script)
	write(t, path, string(read(t, filepath.Join("testdata", script))))
	return exec.Command("node", append([]string{path}, args...)...)
}

// greedy continues tokens with the likeliest ones.
func greedy(t *testing.T, run string, prompt []int32, n int) []int32 {
	t.Helper()
	log, err := runlog.NewLogger(os.Stderr, "error", "text")
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.LoadModel(run, log)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sampler, err := generate.NewSampler(generate.SamplerConfig{TopP: 1, Vocab: m.Tokenizer.VocabSize()})
	if err != nil {
		t.Fatal(err)
	}
	g, err := generate.NewBatch(m.Device, m.Memory, m.Model, generate.Config{Positions: len(prompt) + n})
	if err != nil {
		t.Fatal(err)
	}
	var list []int32
	q := generate.Request{Prompt: prompt, Tokens: n, EOS: -1, Sampler: sampler,
		Emit: func(token int32, _ []float32) bool { list = append(list, token); return true }}
	if err := g.Run(t.Context(), []generate.Request{q}); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestLlamaCpp: llama.cpp loads what was exported and continues a text as this program
// does, token for token. With weights in q8_0 it rounds what they are multiplied with
// too, so that of these it is only asked that they run.
func TestLlamaCpp(t *testing.T) {
	const count, text = 40, "tab\té \"x\"\n<|no|> 12"
	dir := workspace(t, 300, 1000)
	prompt := []int32{256, '7', ' ', 'g'}
	var paths, names []string
	want := map[string][]int32{}
	for arch, pattern := range map[string]string{"mamba": "[mamba]", "llama": "[attn, mlp]"} {
		e := start(t, dir, "pretrain", "tiny.yaml", "--out", arch, "--set", "model.layers.pattern="+pattern, "--set", "model.layers.repeat=2",
			"--set", "model.d_model=64", "--set", "model.mlp.d_ff=128", "--set", "model.attention={heads: 4, kv_heads: 2}", "--set", "data.seq_len=64", "--set", "eval.every=0")
		if e.code != exitOK {
			t.Fatalf("%+v", e)
		}
		for _, dtype := range []string{"float32", "float16", "bfloat16", "q8_0"} {
			out := filepath.Join(dir, arch+"-"+dtype)
			if e := start(t, dir, "export", arch, "--format", "gguf", "--dtype", dtype, "--out", out); e.code != exitOK {
				t.Fatalf("%+v", e)
			}
			paths, names = append(paths, filepath.Join(out, "model.gguf")), append(names, arch+" "+dtype)
		}
		want[arch] = greedy(t, filepath.Join(dir, arch), prompt, count)
		if len(slices.Compact(slices.Sorted(slices.Values(want[arch])))) < 8 {
			t.Errorf("%s: the text %v is too dull to show anything", arch, want[arch])
		}
	}
	c := nodeScript(t, []string{"node-llama-cpp", "@node-llama-cpp/linux-x64", "@huggingface/gguf"}, "llamacpp.mjs", append([]string{strings.Trim(strings.ReplaceAll(fmt.Sprint(prompt), " ", ","), "[]"), fmt.Sprint(count), text}, paths...)...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []struct {
		Continued, Tokens  []int32
		Text, Architecture string
		Types              map[string]int
	}
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(names) {
		t.Fatalf("%d results (%v): %s", len(results), err, out)
	}
	for i, r := range results {
		arch, dtype, _ := strings.Cut(names[i], " ")
		if r.Architecture != arch {
			t.Errorf("%s: architecture %q", names[i], r.Architecture)
		}
		if same := slices.Equal(r.Continued, want[arch]); !same && dtype != "q8_0" || len(r.Continued) != count {
			t.Errorf("%s: llama.cpp continues with\n%v, this program with\n%v", names[i], r.Continued, want[arch])
		}
		var bytes []int32
		for _, b := range []byte(text) {
			bytes = append(bytes, int32(b))
		}
		if !slices.Equal(r.Tokens, bytes) || r.Text != text {
			t.Errorf("%s: the text became %v, and %q", names[i], r.Tokens, r.Text)
		}
		// GGML's numbers of types.
		kind := map[string]int{"float32": 0, "float16": 1, "bfloat16": 30, "q8_0": 8}[dtype]
		if r.Types["token_embd.weight"] != kind || r.Types["output_norm.weight"] != 0 {
			t.Errorf("%s: types %v", names[i], r.Types)
		}
	}
}
