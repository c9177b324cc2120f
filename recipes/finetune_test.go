package recipes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/recipes"
)

// TestFineTune: a task's settings override those of the run, a recipe's override both, and --set
// overrides all; anything else stays as in the run.
func TestFineTune(t *testing.T) {
	base, err := recipes.Load("quickstart", "train.tokens=4096000", "optim.schedule=wsd", "optim.decay_fraction=0.3", "run.out=runs/base", "eval.lengths=[1, 2]")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(own, []byte("name: own\noptim: {lr: 2.0e-4, min_lr: 2.0e-5, warmup_steps: 5}\ntrain: {steps: 40}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		task, recipe string
		sets         []string
		want         map[string]string // in the format of Differences
	}{
		{"passkey", "", nil, map[string]string{
			"name": `"quickstart-passkey"`, "data.generate.task": `"passkey"`, "train.steps": "500", "train.tokens": "0", "train.from": `"runs/base"`,
			"optim.lr": "0.0001", "optim.min_lr": "0.00001", "optim.warmup_steps": "250", "optim.schedule": `"cosine"`, "optim.decay_fraction": "null",
			"eval.lengths": "[1]", "sample.tokens": "0", "run.out": `"runs/quickstart-passkey"`, "data.shards": `""`, "data.text.path": `""`, "data.text.include": "null", "data.text.exclude": "null",
		}},
		{"phonebook", own, []string{"optim.lr=3e-4", "run.out=here"}, map[string]string{
			"name": `"own"`, "data.generate.task": `"phonebook"`, "train.steps": "40", "train.tokens": "0", "train.from": `"runs/base"`,
			"optim.lr": "0.0003", "optim.min_lr": "0.00002", "optim.warmup_steps": "5", "optim.schedule": `"cosine"`, "optim.decay_fraction": "null",
			"eval.lengths": "[1]", "sample.tokens": "0", "run.out": `"here"`, "data.shards": `""`, "data.text.path": `""`, "data.text.include": "null", "data.text.exclude": "null",
		}},
		{"", own, nil, map[string]string{
			"name": `"own"`, "train.steps": "40", "train.tokens": "0", "train.from": `"runs/base"`, "optim.lr": "0.0002", "optim.min_lr": "0.00002", "optim.warmup_steps": "5", "run.out": `"runs/own"`,
		}},
	} {
		r, err := recipes.FineTune(base, "runs/base", c.task, c.recipe, c.sets...)
		if err != nil {
			t.Fatal(err)
		}
		list, err := recipes.Differences(base, r)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, d := range list {
			got[d.Key] = d.B
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("task %q, recipe %q (-want +got):\n%s", c.task, c.recipe, diff)
		}
	}
	if _, err := recipes.FineTune(base, "runs/base", "", own, "train.steps=0"); err == nil || !strings.Contains(err.Error(), "train.steps: say how long to train") {
		t.Errorf("error is %v", err)
	}
	if _, err := recipes.FineTune(base, "runs/base", "passkey", "", "data.shards=x"); err == nil || !strings.Contains(err.Error(), "runs/base: data.shards or data.mixture, given beside the task passkey, replaces its rows: leave one of them out") {
		t.Errorf("error is %v", err)
	}
	if _, err := recipes.FineTune(base, "runs/base", "", "nowhere.yaml"); err == nil || !strings.Contains(err.Error(), "nowhere.yaml: no such file") {
		t.Errorf("error is %v", err)
	}
}
