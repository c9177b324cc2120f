package train

import (
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// checkMemory refuses a plan whose memory the machine can't have. The allocation
// itself would end the program without an error to report.
func checkMemory(sizes [graph.Regions]int) error {
	have := float64(physicalMemory())
	need := 0.0
	for _, n := range sizes {
		if n < 0 {
			return errors.New("model: its size can't be counted in 64 bits: make it smaller")
		}
		need += 4 * float64(n)
	}
	if have == 0 || need <= have {
		return nil
	}
	return fmt.Errorf("model: a step takes %.1f GB of memory, this machine has %.1f GB: make train.micro_batch or the model smaller; `sambatrain inspect` says what takes it",
		need/1e9, have/1e9)
}
