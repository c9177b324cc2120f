package verify

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/recipes"
)

func device(t *testing.T, threads int) graph.Device {
	t.Helper()
	dev, err := cpu.New(threads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// in returns the run section of a recipe with that dtype.
func in(dtype string) recipes.Run {
	run := recipes.Defaults().Run
	run.Device, run.DType = recipes.Auto, dtype
	return run
}

// TestFixtures checks this build against every fixture.
func TestFixtures(t *testing.T) {
	files, err := Files("testdata")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 11 {
		t.Fatalf("%d fixtures, want 11", len(files))
	}
	dev := device(t, 2)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".safetensors")
		t.Run(name, func(t *testing.T) {
			r := Run(dev, file, in(recipes.Float32))
			if !r.Pass {
				t.Errorf("fails: %+v", r)
			}
			// Something that is not measured has an error of exactly 0.
			if r.Logits == 0 || r.Gradients == 0 || r.GradNorms == 0 || r.Parameters == 0 {
				t.Errorf("something was not compared: %+v", r)
			}
		})
	}
}

// TestFixturesInBFloat16 checks bfloat16 against every fixture: on the CPU, which rounds the
// operands of products, and with the roundings of a GPU. With no sublayer in float32, some exceed
// the tolerances (docs/LOG.md).
func TestFixturesInBFloat16(t *testing.T) {
	files, err := Files("testdata")
	if err != nil {
		t.Fatal(err)
	}
	onCPU, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer onCPU.Close()
	onCPU.RoundFactors()
	for name, dev := range map[string]graph.Device{"cpu": onCPU, "as a GPU": emulated{}} {
		t.Run(name, func(t *testing.T) {
			var failed []string
			for _, file := range files {
				r := Run(dev, file, in(recipes.BFloat16))
				if !r.Pass {
					t.Errorf("fails: %+v", r)
				}
				if r.beyond(Float32) == "" {
					t.Errorf("%s: nothing was rounded", file)
				}
				if r.Float32Sublayers < 1 || 2*r.Float32Sublayers > r.Sublayers {
					t.Errorf("%s: %d of %d sublayers are in float32, want some and at most half", file, r.Float32Sublayers, r.Sublayers)
				}
				none := in(recipes.BFloat16)
				none.Float32Sublayers = 0
				if !Run(dev, file, none).Pass {
					failed = append(failed, filepath.Base(file))
				}
			}
			if !slices.Contains(failed, "samba.safetensors") || !slices.Contains(failed, "samba_nope.safetensors") {
				t.Errorf("without sublayers in float32, %v fail", failed)
			}
		})
	}
}

// TestTooManyInFloat32: there can't be more float32 sublayers than sublayers.
func TestTooManyInFloat32(t *testing.T) {
	run := in(recipes.BFloat16)
	run.Float32Sublayers = 9
	if r := Run(device(t, 1), "testdata/samba.safetensors", run); r.Pass || !strings.Contains(r.Error, "9 sublayers can't be in float32: the model has 8") {
		t.Errorf("%+v", r)
	}
}

// TestChangedFixtureFails makes one change to a fixture that passes, slightly larger than the
// tolerance allows. Each change must be found by the corresponding check.
func TestChangedFixtureFails(t *testing.T) {
	const (
		logits = 1 << iota
		loss
		gradients
		steps
		norms
		parameters
	)
	dev := device(t, 1)
	unchanged := read(t, "samba").write(t)
	if r := Run(dev, unchanged, in(recipes.Float32)); !r.Pass {
		t.Fatalf("the unchanged copy fails: %+v", r)
	}
	for _, test := range []struct {
		name   string
		tensor string
		part   float64
		found  int // the checks that must fail; all others must pass
	}{
		{"parameter", "param.model.layers.2.mixer.q_proj.weight", 1, logits | gradients | steps},
		{"state parameter", "param.model.layers.0.mixer.A_log", 1, logits | gradients},
		{"logit", "output.logits", 3e-5, logits},
		{"loss", "output.loss", 3e-5, loss},
		{"gradient", "grad.model.layers.6.mixer.v_proj.weight", 3e-4, gradients},
		{"gradient of a norm", "grad.model.norm_f.weight", 3e-4, gradients},
		{"loss of a step", "train.losses", 2e-4, steps},
		{"gradient norm of a step", "train.grad_norms", 2e-3, norms},
		{"parameter after the steps", "train.param.model.layers.3.mixer.up_proj.weight", 2e-1, parameters},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := read(t, "samba")
			c.bump(t, test.tensor, test.part)
			r := Run(dev, c.write(t), in(recipes.Float32))
			if r.Error != "" || r.Pass {
				t.Fatalf("pass %v, error %q: want a fixture that fails", r.Pass, r.Error)
			}
			for _, check := range []struct {
				name    string
				bit     int
				too     bool
				exactly bool
			}{
				{"logits", logits, r.Logits > Float32.Logits, true},
				{"loss", loss, r.Loss > Float32.Loss, false},
				{"gradients", gradients, r.Gradients > Float32.Gradients, true},
				{"steps", steps, r.Steps > Float32.Steps, false},
				{"gradient norms", norms, r.GradNorms > Float32.GradNorms, false},
				{"parameters", parameters, r.Parameters > Float32.Parameters, false},
			} {
				want := test.found&check.bit != 0
				// A parameter may or may not change the mean loss enough.
				if check.too != want && (want || check.exactly) {
					t.Errorf("%s too large: %v, want %v (%+v)", check.name, check.too, want, r)
				}
			}
		})
	}
}

// TestChangedSettingsFail changes a hyperparameter that is only in the metadata.
func TestChangedSettingsFail(t *testing.T) {
	dev := device(t, 1)
	for _, test := range []struct {
		fixture, field, key string
		value               any
	}{
		{"samba", "model", "norm_eps", 1e-3},
		{"samba", "optimizer", "lr", 0.0021},
		{"samba", "optimizer", "weight_decay", 1.0},
		{"samba", "optimizer", "grad_clip", 1e-6},
		{"samba", "optimizer", "total_steps", 9},
		{"samba", "optimizer", "warmup_steps", 1},
		{"samba", "optimizer", "betas", []float64{0.9, 0.99}},
		{"samba", "model", "attention", map[string]any{"heads": 4, "window": 13}},
		{"samba", "model", "attention", map[string]any{"heads": 4, "window": 12, "rope_base": 9000}},
		{"samba", "model", "attention", map[string]any{"heads": 2, "window": 12}},
	} {
		t.Run(test.field+" "+test.key, func(t *testing.T) {
			c := read(t, test.fixture)
			c.edit(t, test.field, test.key, test.value)
			if r := Run(dev, c.write(t), in(recipes.Float32)); r.Pass || r.Error != "" {
				t.Errorf("pass %v, error %q: want a fixture that fails", r.Pass, r.Error)
			}
		})
	}
}

// TestBadFixture tries files that are not fixtures, or damaged ones.
func TestBadFixture(t *testing.T) {
	nan := float32(math.NaN())
	for _, test := range []struct {
		name   string
		change func(t *testing.T, c *content)
		want   string // a substring of the error
	}{
		{"foreign metadata", func(_ *testing.T, c *content) { c.metadata = map[string]string{"format": "pt"} }, `"pt", want "sambatrain-fixture-1"`},
		{"no metadata", func(_ *testing.T, c *content) { c.metadata = nil }, "`format` is"},
		{"no model", func(_ *testing.T, c *content) { delete(c.metadata, "model") }, "metadata `model`"},
		{"model is no object", func(_ *testing.T, c *content) { c.metadata["model"] = "[1, 2]" }, "metadata `model`"},
		{"unknown key of the model", func(t *testing.T, c *content) { c.edit(t, "model", "experts", 8) }, "experts"},
		{"impossible model", func(t *testing.T, c *content) {
			c.edit(t, "model", "attention", map[string]any{"heads": 5, "window": 12})
		}, "heads: d_model 32"},
		{"no optimizer", func(_ *testing.T, c *content) { delete(c.metadata, "optimizer") }, "metadata `optimizer`"},
		{"no total_steps", func(t *testing.T, c *content) { c.edit(t, "optimizer", "total_steps", nil) }, "total_steps"},
		{"impossible optimizer", func(t *testing.T, c *content) { c.edit(t, "optimizer", "lr", -1) }, "lr"},
		{"no tokens", func(t *testing.T, c *content) { c.remove(t, "input.tokens") }, "input.tokens"},
		{"tokens of rank 1", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "input.tokens", DType: safetensors.I32, Shape: []int{80}}, c.data["input.tokens"])
		}, "input.tokens"},
		{"no rows", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "input.tokens", DType: safetensors.I32, Shape: []int{0, 40}}, nil)
			c.set(safetensors.Entry{Name: "input.targets", DType: safetensors.I32, Shape: []int{0, 40}}, nil)
		}, "[0 40] must be positive"},
		{"tokens that are floats", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "input.tokens", DType: safetensors.F32, Shape: []int{2, 40}}, c.data["input.tokens"])
		}, "input.tokens"},
		{"fewer targets than tokens", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "input.targets", DType: safetensors.I32, Shape: []int{1, 40}}, c.data["input.targets"][:160])
		}, "input.targets"},
		{"token outside the vocabulary", func(_ *testing.T, c *content) {
			c.data["input.tokens"] = slices.Concat(c.data["input.tokens"][:316], []byte{61, 0, 0, 0})
		}, "outside the vocabulary of 61"},
		{"negative target", func(_ *testing.T, c *content) {
			c.data["input.targets"] = slices.Concat(c.data["input.targets"][:316], []byte{255, 255, 255, 255})
		}, "outside the vocabulary of 61"},
		{"missing parameter", func(t *testing.T, c *content) { c.remove(t, "param.model.layers.0.mixer.D") }, "no tensor param.model.layers.0.mixer.D"},
		{"parameter of another model", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "param.lm_head.weight", DType: safetensors.F32, Shape: []int{61, 32}}, make([]byte, 4*61*32))
		}, "param.lm_head.weight is not a parameter"},
		{"parameter of another size", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "param.model.norm_f.weight", DType: safetensors.F32, Shape: []int{31}}, make([]byte, 4*31))
		}, "has 31 elements, want 32"},
		{"parameter of another type", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "param.model.norm_f.weight", DType: safetensors.I32, Shape: []int{32}}, make([]byte, 4*32))
		}, "param.model.norm_f.weight"},
		{"missing logits", func(t *testing.T, c *content) { c.remove(t, "output.logits") }, "no tensor output.logits"},
		{"missing loss", func(t *testing.T, c *content) { c.remove(t, "output.loss") }, "no tensor output.loss"},
		{"missing gradient", func(t *testing.T, c *content) { c.remove(t, "grad.model.norm_f.weight") }, "no tensor grad.model.norm_f.weight"},
		{"missing losses", func(t *testing.T, c *content) { c.remove(t, "train.losses") }, "train.losses"},
		{"no steps", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "train.losses", DType: safetensors.F32, Shape: []int{0}}, nil)
			c.set(safetensors.Entry{Name: "train.grad_norms", DType: safetensors.F32, Shape: []int{0}}, nil)
		}, "train.losses"},
		{"fewer norms than losses", func(_ *testing.T, c *content) {
			c.set(safetensors.Entry{Name: "train.grad_norms", DType: safetensors.F32, Shape: []int{4}}, c.data["train.grad_norms"][:16])
		}, "train.grad_norms"},
		{"missing parameter after the steps", func(t *testing.T, c *content) { c.remove(t, "train.param.model.norm_f.weight") }, "no tensor train.param.model.norm_f.weight"},
		{"NaN parameter", func(t *testing.T, c *content) {
			c.floats(t, "param.model.norm_f.weight", func(x []float32) { x[3] = nan })
		}, "gradient is not finite"},
		{"NaN gradient of the first parameter", func(t *testing.T, c *content) {
			c.floats(t, "grad.model.embeddings.weight", func(x []float32) { x[3] = nan })
		}, "not all finite"},
		{"infinite logit", func(t *testing.T, c *content) {
			c.floats(t, "output.logits", func(x []float32) { x[3] = float32(math.Inf(1)) })
		}, "not all finite"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := read(t, "samba")
			test.change(t, c)
			r := Run(device(t, 1), c.write(t), in(recipes.Float32))
			if r.Pass || !strings.Contains(r.Error, test.want) {
				t.Errorf("pass %v, error %q: want one with %q", r.Pass, r.Error, test.want)
			}
			if strings.Contains(r.Error, "\n") || strings.Contains(r.Error, "changed.safetensors") {
				t.Errorf("error %q: want one line that leaves the file's name to the report", r.Error)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNotAFixture tries files that are not safetensors at all.
func TestNotAFixture(t *testing.T) {
	dir := t.TempDir()
	whole, err := os.ReadFile("testdata/llama.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty.safetensors": nil,
		"text.safetensors":  []byte("not a model at all, but long enough to hold a header"),
		"torn.safetensors":  whole[:len(whole)/2],
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
		if r := Run(device(t, 1), path, in(recipes.Float32)); r.Pass || r.Error == "" {
			t.Errorf("%s: pass %v, error %q", name, r.Pass, r.Error)
		}
	}
	if r := Run(device(t, 1), filepath.Join(dir, "missing"), in(recipes.Float32)); r.Pass || !strings.Contains(r.Error, "no such file") {
		t.Errorf("missing file: pass %v, error %q", r.Pass, r.Error)
	}
}

// TestFiles lists a folder's fixtures; a file is listed as itself.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Files(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Files(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	for _, name := range []string{"b.safetensors", "a.safetensors", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Files(dir)
	want := []string{filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors")}
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("%q, %v; want %q", files, err, want)
	}
	one := filepath.Join(dir, "notes.txt")
	if files, err := Files(one); err != nil || !slices.Equal(files, []string{one}) {
		t.Errorf("%q, %v", files, err)
	}
}

func TestRelative(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, test := range map[string]struct {
		a, b []float32
		want float64
	}{
		"equal":         {[]float32{1, 2}, []float32{1, 2}, 0},
		"all zero":      {[]float32{0, 0}, []float32{0, 0}, 0},
		"by the top":    {[]float32{1, -4}, []float32{2, -4}, 0.25},
		"nothing there": {[]float32{1}, []float32{0}, math.Inf(1)},
		"NaN first":     {[]float32{nan, 1}, []float32{1, 1}, math.NaN()},
		"NaN in b":      {[]float32{1, 1}, []float32{1, nan}, math.NaN()},
		"infinities":    {[]float32{inf, 1}, []float32{inf, 1}, math.NaN()},
	} {
		got := byLargest(test.a, test.b)
		if got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestThreads checks that reports don't depend on the number of workers.
func TestThreads(t *testing.T) {
	file := filepath.Join("testdata", "samba.safetensors")
	one := Run(device(t, 1), file, in(recipes.Float32))
	for _, threads := range []int{2, 3} {
		if r := Run(device(t, threads), file, in(recipes.Float32)); r != one {
			t.Errorf("%d threads: %+v, one: %+v", threads, r, one)
		}
	}
}

// TestOddSizes: windows of 1 and windows that don't divide anything, one key head for three wide
// heads, other numbers of taps and states, per-place settings, and every mixer in one pattern.
func TestOddSizes(t *testing.T) {
	files, err := Files(filepath.Join("testdata", "odd"))
	if err != nil {
		t.Fatal(err)
	}
	dev := device(t, 2)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if r := Run(dev, file, in(recipes.Float32)); !r.Pass {
				t.Errorf("fails: %+v", r)
			}
		})
	}
}
