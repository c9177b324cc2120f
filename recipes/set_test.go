package recipes_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

func TestSet(t *testing.T) {
	r := parse(t, "extends: quickstart",
		"optim.lr=3e-4",
		"optim.betas=[0.8, 0.99]",
		"train.steps=12",
		"run.threads=2",
		"run.out=2024",
		"sample.prompt=a: b # [c] & *d\n- \"e\"",
		"model.layers.pattern=[mamba, {mlp: {d_ff: 100}}]",
		"model.mamba={d_state: 8, dt_rank: 5}",
		"data.text.include=['*.txt', \"b.md\"]",
		"data.text={jsonl_field: body}",
		"train.steps=13", // the last one wins
	)
	want := parse(t, `
extends: quickstart
optim: {lr: 3e-4, betas: [0.8, 0.99]}
train: {steps: 13}
run: {threads: 2, out: "2024"}
sample: {prompt: "a: b # [c] & *d\n- \"e\""}
model:
  layers: {pattern: [mamba, {mlp: {d_ff: 100}}]}
  mamba: {d_state: 8, dt_rank: 5}
data: {text: {include: ["*.txt", b.md], jsonl_field: body}}
`)
	if diff := cmp.Diff(want, r, sameRecipe...); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
	if r.Model.Mamba.DConv != 4 || r.Data.Text.Path != "$GOROOT/src" {
		t.Errorf("a section's other keys are lost: %+v, %+v", r.Model.Mamba, r.Data.Text)
	}
	for set, want := range map[string]string{
		`sample.prompt=`:                ``,
		`sample.prompt="a\tb"`:          "a\tb",
		`sample.prompt='it''s'`:         "it's",
		`sample.prompt=null`:            "null",
		`sample.prompt=  spaces  `:      "  spaces  ",
		`sample.prompt=k=v`:             "k=v",
		`sample.prompt=日本`:              "日本",
		`sample.prompt="quoted" or not`: "",
	} {
		r, err := recipes.Load("quickstart", set)
		if set == `sample.prompt="quoted" or not` {
			if err == nil {
				t.Errorf("%s gives %q", set, r.Sample.Prompt)
			}
			continue
		}
		if err != nil || r.Sample.Prompt != want {
			t.Errorf("%s: %v, want %q", set, err, want)
			continue
		}
		roundTrip(t, r)
	}
}

func TestSetErrors(t *testing.T) {
	for set, want := range map[string]string{
		"optim.lr":                      "--set optim.lr: want key=value, as in --set optim.lr=3e-4",
		"=3":                            "--set =3: want key=value, as in --set optim.lr=3e-4",
		"optim.lrr=3":                   "--set optim.lrr: unknown key optim.lrr; did you mean optim.lr?",
		"lr=3":                          "--set lr: unknown key lr; did you mean optim.lr?",
		"optim..lr=3":                   `--set optim..lr: "optim..lr" is not a key`,
		"optim.lr =3":                   `--set optim.lr: "optim.lr " is not a key`,
		"a: {b.c=3":                     `--set a: {b.c: "a: {b.c" is not a key`,
		"optim.lr=":                     "--set optim.lr: optim.lr has no value",
		"optim.lr=1\n2":                 "--set optim.lr: the value must be on one line",
		"optim.lr=fast":                 `--set optim.lr: optim.lr must be a number, is "fast"`,
		"optim.lr=-1":                   "--set optim.lr: optim.lr: must be positive, is -1",
		"optim.lr=3e-4 # low":           "",
		"optim.betas=0.9":               "--set optim.betas: optim.betas must be a list such as [a, b], is 0.9",
		"optim.betas=[0.9":              "--set optim.betas: sequence end token ']' not found",
		"optim.betas[0]=0.9":            `--set optim.betas[0]: "optim.betas[0]" is not a key`,
		"optim.lr.peak=3":               "--set optim.lr.peak: optim.lr must be a number, is peak: 3",
		"model=small":                   "--set model: model must be a section of `key: value` lines",
		"model.mamba={states: 3}":       "--set model.mamba: unknown key model.mamba.states; did you mean model.mamba.d_state?",
		"extends=quickstart":            "--set extends: only a recipe's file can extend another",
		"train.steps=*x":                "--set train.steps: train.steps: anchors and aliases are not used in recipes; write the value",
		"run.out=\x00":                  "--set run.out: holds the control character U+0000",
		"run.out=\xff":                  "--set run.out: holds bytes that are not UTF-8",
		"train.steps=5 train.steps: 6":  "--set train.steps: mapping value is not allowed in this context",
		"train.batch_size=5":            "",
		"train.micro_batch=3":           "--set train.micro_batch: train.micro_batch: 3 does not divide train.batch_size 4",
		"run.device=" + "x\ny":          `--set run.device: run.device: must be one of cpu, cuda, auto, is "x\ny"`,
		"model.attention={heads: 5}":    "",
		"model.attention={kv_heads: 2}": "--set model.attention: model.attention.kv_heads: 3 query heads are not a multiple of 2",
	} {
		r, err := recipes.Load("quickstart", set)
		if want == "" {
			if err != nil && set != "model.attention={heads: 5}" {
				t.Errorf("%s: %v", set, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s is accepted: %+v", set, r)
			continue
		}
		wantError(t, set, err, want)
	}
}

// TestOneSourceOfRows: of shards, a mixture and generated rows, the last one given replaces the
// others.
func TestOneSourceOfRows(t *testing.T) {
	const mixture, task, shards = "data.mixture=[{name: a, weight: 1, shards: x}]", "data.generate.task=passkey", "data.shards=y"
	for _, sets := range [][]string{
		{task}, {mixture, task}, {shards, mixture, task}, {task, mixture}, {task, shards}, {task, mixture, shards},
	} {
		d := parse(t, "extends: quickstart\n", sets...).Data
		var is []string
		if d.Shards != "" {
			is = append(is, shards)
		}
		if len(d.Mixture) > 0 {
			is = append(is, mixture)
		}
		if d.Generate.Task != "" {
			is = append(is, task)
		}
		if want := sets[len(sets)-1:]; !slices.Equal(is, want) || d.Text.Path != "" && want[0] != shards {
			t.Errorf("%q: the rows are from %q and text %q", sets, is, d.Text.Path)
		}
	}
}

// TestOneOfTwoKeys: steps and tokens mean the same thing, as do the two keys of the warm-up; the
// last one given wins.
func TestOneOfTwoKeys(t *testing.T) {
	tokens := "extends: quickstart\ntrain: {tokens: 1000000, batch_size: 4}\ndata: {seq_len: 500}\n"
	for _, c := range []struct {
		text          string
		sets          []string
		steps, tokens int64
	}{
		{tokens, nil, 500, 1000000},
		{tokens, []string{"train.steps=3"}, 3, 0},
		{tokens, []string{"train.steps=3", "train.tokens=4000"}, 2, 4000},
		{tokens, []string{"train.tokens=4000", "train.steps=3"}, 3, 0},
		{tokens, []string{"train={steps: 500, tokens: 1000000}"}, 500, 1000000},
	} {
		r := parse(t, c.text, c.sets...)
		if r.Train.Steps != c.steps || r.Train.Tokens != c.tokens {
			t.Errorf("%v: %d steps, %d tokens; want %d, %d", c.sets, r.Train.Steps, r.Train.Tokens, c.steps, c.tokens)
		}
	}
	// A resolved recipe has both, and can still be changed.
	text, err := parse(t, tokens).YAML()
	if err != nil {
		t.Fatal(err)
	}
	if r := parse(t, string(text), "train.steps=7"); r.Train.Steps != 7 || r.Train.Tokens != 0 {
		t.Errorf("a resolved recipe with --set train.steps=7 has %+v", r.Train)
	}
	for _, set := range []string{"optim.schedule=constant", "optim.schedule=linear", "optim.schedule=wsd"} {
		r := parse(t, "extends: quickstart\noptim: {schedule: wsd, decay_fraction: 0.5, min_lr: 1e-5}", set)
		if (r.Optim.MinLR == nil) != (r.Optim.Schedule == optim.Constant) || (r.Optim.DecayFraction == nil) != (r.Optim.Schedule != optim.WSD) {
			t.Errorf("%s: %+v", set, r.Optim)
		}
	}
	r := parse(t, "extends: quickstart", "optim.warmup_fraction=0.1")
	if r.Optim.WarmupSteps != nil || r.Optim.WarmupFraction == nil || *r.Optim.WarmupFraction != 0.1 {
		t.Errorf("warm-up is %v, %v", r.Optim.WarmupSteps, r.Optim.WarmupFraction)
	}
	r = parse(t, "extends: quickstart", "optim.warmup_fraction=0.1", "optim.warmup_steps=5")
	if r.Optim.WarmupFraction != nil || r.Optim.WarmupSteps == nil || *r.Optim.WarmupSteps != 5 {
		t.Errorf("warm-up is %v, %v", r.Optim.WarmupSteps, r.Optim.WarmupFraction)
	}
}
