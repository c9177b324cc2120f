package optim_test

import (
	"fmt"

	"github.com/sambatrain/sambatrain/optim"
)

// The learning rate rises from 0 and falls along half a cosine.
func ExampleAdamW_LR() {
	warmup := int64(10)
	o := optim.DefaultAdamW()
	o.WarmupSteps = &warmup
	for _, step := range []int64{0, 5, 10, 55, 99} {
		fmt.Printf("step %d: %.2e\n", step, o.LR(step, 100))
	}
	// Output:
	// step 0: 0.00e+00
	// step 5: 2.00e-04
	// step 10: 4.00e-04
	// step 55: 2.20e-04
	// step 99: 4.01e-05
}
