package recipes_test

import (
	"fmt"

	"github.com/sambatrain/sambatrain/recipes"
)

// A built-in recipe, modified as by --set.
func ExampleLoad() {
	r, err := recipes.Load("quickstart", "train.steps=1000", "model.layers.pattern=[mamba, {mlp: {d_ff: 768}}]")
	if err != nil {
		fmt.Println(err)
		return
	}
	was, err := recipes.Load("quickstart")
	if err != nil {
		fmt.Println(err)
		return
	}
	changes, err := recipes.Differences(was, r)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range changes {
		fmt.Println(c)
	}
	_, err = recipes.Load("quickstart", "optim.lrr=3e-4")
	fmt.Println(err)
	// Output:
	// model.layers.pattern: ["mamba","mlp","swa","mlp"] and ["mamba",{"mlp":{"d_ff":768}}]
	// train.steps: 400 and 1000
	// --set optim.lrr: unknown key optim.lrr; did you mean optim.lr?
}
