package recipes_test

import (
	"fmt"
	"testing"

	"github.com/sambatrain/sambatrain/recipes"
)

func TestDifferences(t *testing.T) {
	a := parse(t, "extends: quickstart\nmodel: {layers: {pattern: [{mlp: {d_ff: 3}}, mamba]}}")
	text, err := a.YAML()
	if err != nil {
		t.Fatal(err)
	}
	list, err := recipes.Differences(a, parse(t, string(text)))
	if err != nil || len(list) != 0 {
		t.Errorf("a recipe and itself written out differ in %v (%v)", list, err)
	}
	b := parse(t, string(text), "model.d_model=256", "model.layers.pattern=[{mlp: {d_ff: 4}}, mamba]", "optim.min_lr=1e-5", "optim.warmup_fraction=0.5", "data.text.include=[x]", "run.threads=3")
	list, err = recipes.Differences(a, b)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[model.d_model: 192 and 256 model.layers.pattern: [{"mlp":{"d_ff":3}},"mamba"] and [{"mlp":{"d_ff":4}},"mamba"]` +
		` data.text.include: ["**/*.go"] and ["x"] optim.min_lr: 0.0003 and 0.00001 optim.warmup_steps: 30 and null optim.warmup_fraction: null and 0.5 run.threads: 0 and 3]`
	if got := fmt.Sprint(list); got != want {
		t.Errorf("differences are\n%s\nwant\n%s", got, want)
	}
}
