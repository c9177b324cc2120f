package checkpoint_test

import (
	"fmt"
	"os"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// A run's state is saved under its lock, and read back from the newest checkpoint that is complete.
func Example() {
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	run, err := checkpoint.Lock(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer run.Unlock()
	weights := []checkpoint.Tensor{{Name: "w", Shape: []int{2}, Data: []float32{1, 2}}}
	moments := []checkpoint.Tensor{{Name: checkpoint.ExpAvgPrefix + "w", Shape: []int{2}, Data: []float32{0.1, 0.2}}}
	if _, err := run.Save(checkpoint.State{Step: 100, Tokens: 3200, RecipeSHA256: checkpoint.RecipeSHA256(nil)}, weights, moments); err != nil {
		fmt.Println(err)
		return
	}

	weights[0].Data, moments[0].Data = make([]float32, 2), make([]float32, 2)
	newest, damaged, err := checkpoint.Newest(dir)
	if err == nil {
		err = newest.Read(weights, moments)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(newest.State.Step, weights[0].Data, moments[0].Data, len(damaged))
	// Output: 100 [1 2] [0.1 0.2] 0
}
