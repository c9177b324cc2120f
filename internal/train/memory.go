package train

import (
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/recipes"
)

const (
	// usable is the fraction of a device's free memory that a run may use: kernels need workspaces,
	// and other programs a little.
	usable = 0.95
	budget = "run.memory_budget"
)

// persistentBytes returns what a process keeps between steps for n parameters: weights, gradients,
// both moments and mixed precision's copy of the weights, or its share of them.
func (c EngineConfig) persistentBytes(n int64) int64 {
	weights, moments := 8*n, 8*n
	if c.Mixed {
		weights += 2 * n
	}
	switch c.Shard {
	case recipes.ShardOptimizer:
		moments /= int64(c.processes())
	case recipes.ShardFull:
		moments /= int64(c.processes())
		weights /= int64(c.processes())
	}
	if c.copyOnDevice {
		weights += checkpointCopyBytes(n) / int64(c.processes())
	}
	return weights + moments
}

// checkpointCopyBytes is the size of a snapshot of n parameters and their two moments.
func checkpointCopyBytes(n int64) int64 { return 3 * 4 * n }

// kept names what persistentBytes counts.
func (c EngineConfig) kept() string {
	if c.copyOnDevice {
		return "parameters, gradients, moments and the copy for checkpoints"
	}
	return "parameters, gradients and moments"
}

// limitArena divides a memory budget: what n parameters don't use is for the tensors of a
// micro-batch.
func limitArena(b *graph.Builder, c EngineConfig) error {
	if c.MemoryBudget == 0 {
		return nil
	}
	persistent := c.persistentBytes(int64(b.ParamsLength()))
	if persistent >= c.MemoryBudget || persistent < 0 {
		return fmt.Errorf("%s: %s alone take %.3g GB of memory, but only %.3g GB are available: make the model smaller",
			budget, c.kept(), float64(persistent)/1e9, float64(c.MemoryBudget)/1e9)
	}
	b.SetArenaLimit(c.MemoryBudget - persistent)
	return nil
}

// explainLimit says how much a plan that does not fit would take.
func explainLimit(err error, c EngineConfig) error {
	var limit *graph.LimitError
	if !errors.As(err, &limit) {
		return err
	}
	persistent := c.MemoryBudget - limit.Limit
	return fmt.Errorf("%s: a step takes %.3g GB of memory, but only %.3g GB are available, even with all activations recomputed (%.3g GB are %s): lower train.micro_batch or data.seq_len",
		budget, float64(persistent+limit.Need)/1e9, float64(c.MemoryBudget)/1e9, float64(persistent)/1e9, c.kept())
}
