package recipes_test

import (
	"fmt"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// sameRecipe compares recipes. Mixers have unexported fields, which are set only inside a model; an
// empty list is written as [].
var sameRecipe = []cmp.Option{
	cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && !token.IsExported(f.Name())
	}, cmp.Ignore()),
	cmpopts.EquateEmpty(),
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

func parse(t *testing.T, text string, sets ...string) *recipes.Recipe {
	t.Helper()
	r, err := recipes.Parse([]byte(text), "test.yaml", sets...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("%s: error is\n%v\nwant\n%s", what, err, want)
	}
}

// TestBuiltin: every built-in recipe is found by name, is valid, and reads back the same when it is
// written out with all its keys.
func TestBuiltin(t *testing.T) {
	names := recipes.Names()
	if !slices.Contains(names, "quickstart") || !slices.IsSorted(names) {
		t.Errorf("names are %v", names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text, from, err := recipes.Source(name)
			if err != nil {
				t.Fatal(err)
			}
			if want := "built-in recipes/" + name + ".yaml"; from != want {
				t.Errorf("comes from %q, want %q", from, want)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Error("does not begin with a comment that says what it is")
			}
			r, err := recipes.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			if r.Name != name {
				t.Errorf("its name key says %q", r.Name)
			}
			for _, other := range []string{name + ".yaml", "recipes/" + name + ".yaml", "recipes/" + name} {
				again, err := recipes.Load(other)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(r, again, sameRecipe...); diff != "" {
					t.Errorf("loaded as %s it differs:\n%s", other, diff)
				}
			}
			roundTrip(t, r)
		})
	}
}

// roundTrip writes r with all keys and reads it back.
func roundTrip(t *testing.T, r *recipes.Recipe) {
	t.Helper()
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := recipes.Parse(text, "resolved.yaml")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if diff := cmp.Diff(r, again, sameRecipe...); diff != "" {
		t.Fatalf("written out and read again, it differs (-was +is):\n%s\n%s", diff, text)
	}
	twice, err := again.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(twice)); diff != "" {
		t.Errorf("written out again, it differs:\n%s", diff)
	}
}

// TestFilesOfTheRepository: the embedded recipes are the files in this folder.
func TestFilesOfTheRepository(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".yaml")
	}
	slices.Sort(files)
	if diff := cmp.Diff(files, recipes.Names()); diff != "" {
		t.Errorf("files and names differ:\n%s", diff)
	}
}

func TestSourceErrors(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"quickstrat", "elsewhere/quickstart.yaml", "../quickstart", "recipes/x/quickstart", filepath.Join(dir, "quickstart.yaml")} {
		_, err := recipes.Load(name)
		wantError(t, name, err, fmt.Sprintf("recipe %s: no such file, and no built-in recipe has that name; did you mean quickstart? `sambatrain recipes ls` lists them", name))
	}
	if _, err := recipes.Load(dir); err == nil || !strings.Contains(err.Error(), "is a folder; name a YAML file in it") {
		t.Errorf("a folder: %v", err)
	}
}

// TestFileBeforeBuiltin: a file has priority, whatever its name; a folder does not hide a built-in
// recipe.
func TestFileBeforeBuiltin(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("quickstart", 0o777); err != nil {
		t.Fatal(err)
	}
	r, err := recipes.Load("quickstart")
	if err != nil || r.Name != "quickstart" {
		t.Errorf("beside a folder of that name: %v", err)
	}
	write(t, dir, "quickstart.yaml", "extends: quickstart\nname: mine\n")
	if r, err = recipes.Load("quickstart.yaml"); err != nil || r.Name != "mine" {
		t.Errorf("a file: %+v, %v", r, err)
	}
}

// TestDefaults: settings that a recipe leaves out are Samba's.
func TestDefaults(t *testing.T) {
	r := parse(t, `
name: small
model:
  vocab_size: 320
  d_model: 64
  layers: {pattern: [mamba, mlp, swa, mlp]}
  attention: {window: 16}
  mlp: {d_ff: 96}
data: {shards: runs/data}
train: {tokens: 20e9}
`)
	want := recipes.Defaults()
	want.Name = "small"
	want.Model.VocabSize, want.Model.DModel = 320, 64
	want.Model.Layers.Pattern = []layers.Place{{Mixer: "mamba"}, {Mixer: "mlp"}, {Mixer: "swa"}, {Mixer: "mlp"}}
	want.Model.Attention.Window, want.Model.MLP.DFF = 16, 96
	want.Data.Shards = "runs/data"
	want.Train.Tokens = 20_000_000_000
	want.Train.Steps = 20_000_000_000 / (512 * 512)
	want.Train.MicroBatch = 512
	want.Run.Out = "runs/small"
	if diff := cmp.Diff(&want, r, sameRecipe...); diff != "" {
		t.Errorf("recipe (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(optim.AdamW{PeakLR: 4e-4, Schedule: optim.Cosine, Betas: []float64{0.9, 0.95}, Eps: 1e-8, WeightDecay: 0.1, Decayed: optim.DecayAll, GradClip: 1}, r.Optim); diff != "" {
		t.Errorf("optimizer (-want +got):\n%s", diff)
	}
	before := *r
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&before, r, sameRecipe...); diff != "" {
		t.Errorf("validated twice, it differs:\n%s", diff)
	}
	roundTrip(t, r)
}

// TestForms: values that may be written in more than one way.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		text string
		want any
		got  func(r *recipes.Recipe) any
	}{
		{"train: {steps: 1_000}", int64(1000), func(r *recipes.Recipe) any { return r.Train.Steps }},
		{"train: {steps: 1e3}", int64(1000), func(r *recipes.Recipe) any { return r.Train.Steps }},
		{"train: {steps: 1000.0}", int64(1000), func(r *recipes.Recipe) any { return r.Train.Steps }},
		{"train: {steps: +12}", int64(12), func(r *recipes.Recipe) any { return r.Train.Steps }},
		{"train: {seed: 18446744073709551615}", uint64(1<<64 - 1), func(r *recipes.Recipe) any { return r.Train.Seed }},
		{"train: {seed: 1e6}", uint64(1_000_000), func(r *recipes.Recipe) any { return r.Train.Seed }},
		{"optim: {lr: 3e-4}", 3e-4, func(r *recipes.Recipe) any { return r.Optim.PeakLR }},
		{"optim: {lr: .5}", 0.5, func(r *recipes.Recipe) any { return r.Optim.PeakLR }},
		{"optim: {lr: 1}", 1.0, func(r *recipes.Recipe) any { return r.Optim.PeakLR }},
		{"optim: {lr: 1., min_lr: 1E-5}", 1e-5, func(r *recipes.Recipe) any { return *r.Optim.MinLR }},
		{"optim: {betas: [0.9, 99e-2]}", []float64{0.9, 0.99}, func(r *recipes.Recipe) any { return r.Optim.Betas }},
		{"optim:\n  betas:\n  - 0.8\n  - 0.9", []float64{0.8, 0.9}, func(r *recipes.Recipe) any { return r.Optim.Betas }},
		{"run: {device: 'cpu'}", "cpu", func(r *recipes.Recipe) any { return r.Run.Device }},
		{`sample: {prompt: "a\n\"b\""}`, "a\n\"b\"", func(r *recipes.Recipe) any { return r.Sample.Prompt }},
		{"sample:\n  prompt: |\n    two\n    lines\n", "two\nlines\n", func(r *recipes.Recipe) any { return r.Sample.Prompt }},
		{"sample: {prompt: func main() }", "func main()", func(r *recipes.Recipe) any { return r.Sample.Prompt }},
		{"model: {tie_embeddings: false}", false, func(r *recipes.Recipe) any { return r.Model.TieEmbeddings }},
		{"model: {mamba: {dt_rank: 7}}", layers.Auto(7), func(r *recipes.Recipe) any { return r.Model.Mamba.DTRank }},
		{"model: {mamba: {dt_rank: auto}}", layers.Auto(0), func(r *recipes.Recipe) any { return r.Model.Mamba.DTRank }},
		{"model: {layers: {pattern: [mamba, {mlp: {d_ff: 64}}, {swa: {}}]}}", "[{mamba map[]} {mlp map[d_ff:64]} {swa map[]}]",
			func(r *recipes.Recipe) any { return fmt.Sprint(r.Model.Layers.Pattern) }},
		{"run: {memory_budget: 32GB}", recipes.Bytes(32e9), func(r *recipes.Recipe) any { return r.Run.MemoryBudget }},
		{"run: {memory_budget: 1.5 GiB}", recipes.Bytes(3 << 29), func(r *recipes.Recipe) any { return r.Run.MemoryBudget }},
		{"run: {memory_budget: 12345B}", recipes.Bytes(12345), func(r *recipes.Recipe) any { return r.Run.MemoryBudget }},
		{"run: {memory_budget: auto}", recipes.Bytes(0), func(r *recipes.Recipe) any { return r.Run.MemoryBudget }},
		{"run: {float32_sublayers: 3}", recipes.Sublayers(3), func(r *recipes.Recipe) any { return r.Run.Float32Sublayers }},
		{"run: {float32_sublayers: 0, dtype: bfloat16}", recipes.Sublayers(0), func(r *recipes.Recipe) any { return r.Run.Float32Sublayers }},
		{"run: {float32_sublayers: auto}", recipes.AutoSublayers, func(r *recipes.Recipe) any { return r.Run.Float32Sublayers }},
		{"run: {timeout: 90s}", recipes.Duration(90 * time.Second), func(r *recipes.Recipe) any { return r.Run.Timeout }},
		{"run: {timeout: 1h}", recipes.Duration(time.Hour), func(r *recipes.Recipe) any { return r.Run.Timeout }},
		{"\"train\": {'steps': 7}", int64(7), func(r *recipes.Recipe) any { return r.Train.Steps }},
		{"train: {}\nrun: {threads: 3}", 3, func(r *recipes.Recipe) any { return r.Run.Threads }},
		{"train: {steps: 9}\r\nrun: {threads: 3}\r\n", int64(9), func(r *recipes.Recipe) any { return r.Train.Steps }},
	} {
		r, err := recipes.Parse([]byte("extends: quickstart\n"+c.text), "test.yaml")
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(c.want, c.got(r)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, diff)
		}
		roundTrip(t, r)
	}
}

// TestByteOrderMark: some editors begin a file with one.
func TestByteOrderMark(t *testing.T) {
	if r := parse(t, "\ufeffextends: quickstart\ntrain: {steps: 9}\n"); r.Train.Steps != 9 {
		t.Errorf("%d steps, want 9", r.Train.Steps)
	}
	_, err := recipes.Parse([]byte("\ufeffextends: quickstart\ntrian: {steps: 9}\n"), "test.yaml")
	wantError(t, "a misspelt key", err, "test.yaml:2: unknown key trian; did you mean train?")
}

func TestExtends(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "base.yaml", "extends: quickstart\nname: base\nmodel: {d_model: 96, layers: {pattern: [mamba, mlp], repeat: 3}}\noptim: {betas: [0.5, 0.6]}\n")
	write(t, dir, "shared/wide.yaml", "extends: ../base.yaml\nname: wide\nmodel: {d_model: 128}\n")
	file := write(t, dir, "mine.yaml", "name: mine # comes first, yet after what it extends\nextends: shared/wide.yaml\noptim: {betas: [0.7, 0.8]}\nmodel: {layers: {pattern: [swa]}}\n")
	r, err := recipes.Load(file, "train.steps=3")
	if err != nil {
		t.Fatal(err)
	}
	quick, err := recipes.Load("quickstart")
	if err != nil {
		t.Fatal(err)
	}
	want := *quick
	want.Name, want.Run.Out = "mine", "runs/mine"
	want.Model.DModel = 128
	want.Model.Layers = layers.Stack{Pattern: []layers.Place{{Mixer: "swa"}}, Repeat: 3}
	want.Optim.Betas = []float64{0.7, 0.8}
	want.Train.Steps = 3
	if diff := cmp.Diff(&want, r, sameRecipe...); diff != "" {
		t.Errorf("recipe (-want +got):\n%s", diff)
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "extends") {
		t.Errorf("the resolved recipe still extends another:\n%s", text)
	}
	roundTrip(t, r)

	absolute := write(t, t.TempDir(), "far.yaml", fmt.Sprintf("extends: %q\nname: far\n", file))
	if r, err = recipes.Load(absolute); err != nil || r.Model.DModel != 128 {
		t.Errorf("extends with a full path: %+v, %v", r, err)
	}
	// A file in the same folder has priority over the built-in recipe.
	write(t, dir, "quickstart", "extends: mine.yaml\n")
	near := write(t, dir, "near.yaml", "extends: quickstart\nname: near\n")
	if _, err = recipes.Load(near); err == nil || !strings.Contains(err.Error(), "is circular") {
		t.Errorf("near.yaml, quickstart, mine.yaml and so on to base.yaml, which extends the file quickstart: %v", err)
	}
	// An error in a value names the file that set it.
	bad := write(t, dir, "bad.yaml", "\n\nmodel: {d_model: 0}\nextends: shared/wide.yaml\n")
	worse := write(t, dir, "worse.yaml", "extends: bad.yaml\nname: worse\n")
	os.Remove(filepath.Join(dir, "quickstart"))
	_, err = recipes.Load(worse)
	wantError(t, "worse", err, bad+":3: model.d_model: must be 1 to 1048576, is 0")
}

// TestAnyText: text of any kind is read back as it was written, alone and in lists.
func TestAnyText(t *testing.T) {
	alphabet := []rune(" \t\n\r:#-'\"\\[]{}&*!|>%@`,?~=<.0aN\u00e9\u65e5\u2028\ufeff\U0001f600\ufffd")
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		var text []rune
		for range 1 + r.IntN(8) {
			text = append(text, alphabet[r.IntN(len(alphabet))])
		}
		recipe := recipes.Defaults()
		if err := recipe.Set("sample.prompt=" + string(text)); err != nil {
			if text[0] == '"' || text[0] == '\'' {
				continue // it is read as YAML, which it is not
			}
			t.Fatalf("%q: %v", string(text), err)
		}
		if text[0] != '"' && text[0] != '\'' && recipe.Sample.Prompt != string(text) {
			t.Fatalf("%q is set as %q", string(text), recipe.Sample.Prompt)
		}
		if !strings.ContainsAny(string(text), `[]{}*?\`) { // any other text is a file pattern
			recipe.Data.Text.Include = []string{"x", string(text), "y"}
		}
		recipe.Model.Layers.Pattern = []layers.Place{{Mixer: "mlp"}}
		out, err := recipe.YAML()
		if err != nil {
			t.Fatal(err)
		}
		_, err = recipes.Parse(out, "resolved.yaml")
		if err == nil || !strings.HasPrefix(err.Error(), "resolved.yaml:1: name: is empty") {
			t.Fatalf("%q: %v in\n%s", string(text), err, out)
		}
		again, err := recipes.Parse(out, "resolved.yaml", "name=x", "train.steps=1", "data.shards=s", "model.vocab_size=9", "model.d_model=8", "model.mlp.d_ff=4")
		if err != nil {
			t.Fatalf("%q: %v in\n%s", string(text), err, out)
		}
		if again.Sample.Prompt != recipe.Sample.Prompt || !slices.Equal(again.Data.Text.Include, recipe.Data.Text.Include) {
			t.Fatalf("%q comes back as %q and %q from\n%s", string(text), again.Sample.Prompt, again.Data.Text.Include, out)
		}
	}
}

// TestMixture: a mixture replaces an extended recipe's shards, survives being written and read, and
// can be replaced by shards again.
func TestMixture(t *testing.T) {
	r, err := recipes.Parse([]byte(`
extends: quickstart
data:
  mixture:
    - {name: code, weight: 0.7, shards: runs/data/code, text: {path: $GOROOT/src, include: ["**/*.go"]}}
    - {name: books, weight: 0.3, shards: runs/data/books}
`), "test")
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Data; len(d.Mixture) != 2 || d.Mixture[0].Weight != 0.7 || d.Mixture[0].Text.Include[0] != "**/*.go" || d.Shards != "" {
		t.Errorf("data is %+v", d)
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := recipes.Parse(text, "test")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if second, err := again.YAML(); err != nil || string(second) != string(text) {
		t.Errorf("written again it is\n%s\nwas\n%s", second, text)
	}
	back, err := recipes.Parse(text, "test", "data.shards=runs/data/code")
	if err != nil || len(back.Data.Mixture) != 0 {
		t.Errorf("with shards set: %v, %v", err, back)
	}
}
