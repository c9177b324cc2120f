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

// references names the folder of npm packages that .ci/run installs: other programs that open our
// files.
const references = "SAMBATRAIN_REFERENCES"

// testdata is absolute, for tests that change their working directory.
var testdata = func() string {
	path, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return path
}()

// nodeScript returns a command that runs a script of testdata next to the packages it needs.
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
	write(t, path, string(read(t, filepath.Join(testdata, script))))
	return exec.Command("node", append([]string{path}, args...)...)
}

// foreignModel is an exported model, and what another program should compute with it.
type foreignModel struct {
	Path   string  `json:"path"`
	Prompt []int32 `json:"prompt"`

	run, arch, dtype string
	continued        []int32 // the prompt, followed by the likeliest tokens
	tokens           []int32 // of a text
}

// expect fills in what this program computes with a run: a continuation of prompt by n tokens, and
// the tokens of text.
func (f *foreignModel) expect(t *testing.T, run, prompt, text string, n int) {
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
	if f.Prompt, err = m.Tokenizer.Encode([]int32{m.Tokenizer.EOS()}, []byte(prompt)); err != nil {
		t.Fatal(err)
	}
	if f.tokens, err = m.Tokenizer.Encode(nil, []byte(text)); err != nil {
		t.Fatal(err)
	}
	sampler, err := generate.NewSampler(generate.SamplerConfig{TopP: 1, Vocab: m.Tokenizer.VocabSize()})
	if err != nil {
		t.Fatal(err)
	}
	g, err := generate.NewBatch(m.Device, m.Memory, m.Model, generate.Config{Positions: len(f.Prompt) + n})
	if err != nil {
		t.Fatal(err)
	}
	q := generate.Request{Prompt: f.Prompt, Tokens: n, EOS: -1, Sampler: sampler,
		Emit: func(token int32, _ []float32) bool { f.continued = append(f.continued, token); return true }}
	if err := g.Run(t.Context(), []generate.Request{q}); err != nil {
		t.Fatal(err)
	}
}

// must runs the program, which must succeed.
func must(t *testing.T, dir string, args ...string) {
	t.Helper()
	if e := start(t, dir, args...); e.code != exitOK {
		t.Fatalf("%v: %+v", args, e)
	}
}

// TestLlamaCpp: llama.cpp loads exported models, tokenizes a text identically, and continues it
// like this program, token for token. With q8_0 weights it also rounds what they are multiplied
// with, so these models only have to run.
func TestLlamaCpp(t *testing.T) {
	const count, prompt, text = 40, "7 g", "tab\té \"x\"\n<|no|> 12 green  bottles, it's 345"
	dir := workspace(t, 300, 1000)
	must(t, dir, "tokenizer", "train", "--text", "text", "--vocab-size", "300", "--out", "bpe")
	type exported struct {
		run, pattern, tokenizer string
		dtypes                  []string
	}
	runs := []exported{
		{"mamba", "[mamba]", "bytes", []string{"float32", "float16", "bfloat16", "q8_0"}},
		{"llama", "[attn, mlp]", "bytes", []string{"float32", "float16", "bfloat16", "q8_0"}},
		{"bpe-mamba", "[mamba]", "bpe/tokenizer.json", []string{"float32"}},
	}
	if _, err := exec.LookPath("spm_train"); err != nil {
		t.Log("SentencePiece is left out: spm_train is not installed (apt install sentencepiece)")
	} else {
		trainSentencePiece(t, dir, "sp")
		runs = append(runs, exported{"sp-llama", "[attn, mlp]", "sp.model", []string{"float32"}})
	}
	var models []foreignModel
	for _, c := range runs {
		must(t, dir, "pretrain", "tiny.yaml", "--out", c.run, "--set", "model.layers.pattern="+c.pattern, "--set", "model.layers.repeat=2",
			"--set", "model.d_model=64", "--set", "model.mlp.d_ff=128", "--set", "model.attention={heads: 4, kv_heads: 2}", "--set", "data.seq_len=32", "--set", "eval.every=0",
			"--set", "model.vocab_size=352", "--set", "data.tokenizer="+c.tokenizer, "--set", "data.shards=shards-"+c.run)
		arch := c.run[strings.Index(c.run, "-")+1:]
		for _, dtype := range c.dtypes {
			out := c.run + "-" + dtype
			must(t, dir, "export", c.run, "--format", "gguf", "--dtype", dtype, "--out", out)
			f := foreignModel{Path: filepath.Join(dir, out, "model.gguf"), run: c.run, arch: arch, dtype: dtype}
			t.Chdir(dir) // a tokenizer's path may be relative
			f.expect(t, c.run, prompt, text, count)
			models = append(models, f)
		}
	}
	for i, r := range runLlamaCpp(t, models, count, text) {
		f := models[i]
		name := f.run + " in " + f.dtype
		if r.Architecture != f.arch {
			t.Errorf("%s: architecture %q", name, r.Architecture)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(f.continued)))) < 8 {
			t.Errorf("%s: the text %v is too dull to show anything", name, f.continued)
		}
		if same := slices.Equal(r.Continued, f.continued); !same && f.dtype != "q8_0" || len(r.Continued) != count {
			t.Errorf("%s: llama.cpp continues with\n%v, this program with\n%v", name, r.Continued, f.continued)
		}
		if !slices.Equal(r.Tokens, f.tokens) || r.Text != text {
			t.Errorf("%s: the text became %v, and %q, here %v", name, r.Tokens, r.Text, f.tokens)
		}
		// GGML's type numbers.
		kind := map[string]int{"float32": 0, "float16": 1, "bfloat16": 30, "q8_0": 8}[f.dtype]
		if r.Types["token_embd.weight"] != kind || r.Types["output_norm.weight"] != 0 {
			t.Errorf("%s: types %v", name, r.Types)
		}
	}
}

// trainSentencePiece makes dir/name.model, with BPE as in Llama-2, from the workspace's text.
func trainSentencePiece(t *testing.T, dir, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "text", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no text, %v", err)
	}
	c := exec.Command("spm_train", "--input="+strings.Join(files, ","), "--model_prefix="+filepath.Join(dir, name), "--model_type=bpe", "--vocab_size=330",
		"--byte_fallback", "--normalization_rule_name=identity", "--remove_extra_whitespaces=false", "--allow_whitespace_only_pieces", "--hard_vocab_limit=false", "--minloglevel=2")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("spm_train: %v: %s", err, out)
	}
}

// foreignResult is what another program computed with a model.
type foreignResult struct {
	Continued, Tokens  []int32
	Text, Architecture string
	Types              map[string]int // by tensor name
}

func runLlamaCpp(t *testing.T, models []foreignModel, count int, text string) []foreignResult {
	t.Helper()
	jobs, err := json.Marshal(models)
	if err != nil {
		t.Fatal(err)
	}
	c := nodeScript(t, []string{"node-llama-cpp", "@node-llama-cpp/linux-x64", "@huggingface/gguf"}, "llamacpp.mjs", string(jobs), fmt.Sprint(count), text)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []foreignResult
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(models) {
		t.Fatalf("%d results (%v): %s", len(results), err, out)
	}
	return results
}
