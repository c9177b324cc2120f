package train

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// bucketElements are the gradients that processes exchange at a time: 64 MB, long
// enough for a network's full speed, short enough to begin early in the backward pass.
const bucketElements = 16 << 20

func (c EngineConfig) processes() int {
	if c.Comm == nil {
		return 1
	}
	return c.Comm.Size()
}

func (c EngineConfig) buckets(n int) graph.Buckets {
	size := bucketElements
	if c.bucket > 0 {
		size = c.bucket
	}
	return graph.NewBuckets(n, size, c.processes())
}

// shard leaves a plan's process pieces of the parameters, if that is asked for; train is
// the training's plan, nil in the making of that.
func (c EngineConfig) shard(g *graph.Builder, train *graph.Plan) {
	if c.Comm != nil && c.Shard == recipes.ShardFull {
		g.SetSharding(optim.Sharding(c.Comm.Size(), train))
	}
}

// join makes the engine one of several, before its programs are loaded.
func (e *Engine) join(c EngineConfig, plan *graph.Plan) error {
	buckets := c.buckets(e.floats)
	if c.Shard == recipes.ShardFull {
		buckets = plan.Buckets
	}
	e.floats = buckets.Length
	if c.Shard == recipes.ShardOptimizer || c.Shard == recipes.ShardFull {
		e.shard = optim.Shard{Rank: c.Comm.Rank(), Size: c.Comm.Size(), Buckets: buckets, Full: c.Shard == recipes.ShardFull}
	}
	if err := e.dev.Join(c.Comm); err != nil {
		return err
	}
	sum, err := optim.BuildSum(exchanged)
	if err != nil {
		return err
	}
	e.exchange, err = e.dev.Load(sum, nil)
	return err
}

// loadMore is the program of the micro-batches before a step's last one: the same where
// there is nothing to exchange, and where gradients are reduced after each one: there is no
// room for all of a process's own.
func (e *Engine) loadMore(c EngineConfig) (graph.Program, error) {
	if !c.Accumulate || c.Comm == nil || c.Shard == recipes.ShardFull {
		return e.train, nil
	}
	plan, err := trainPlan(e.model, c, false)
	if err != nil {
		return nil, err
	}
	return e.dev.Load(plan, e.mem)
}

// Processes is how many processes train together.
func (e *Engine) Processes() int {
	if e.comm == nil {
		return 1
	}
	return e.comm.Size()
}

// exchanged is how many numbers the processes sum at a time.
const exchanged = 3

// sums replaces x by its sum over the processes, which must all ask.
func (e *Engine) sums(x *[exchanged]float32) error {
	if e.comm == nil {
		return nil
	}
	if err := e.exchange.WriteFloats(optim.SumInput, x[:]); err != nil {
		return err
	}
	if err := e.exchange.Run(); err != nil {
		return err
	}
	return e.exchange.Read(optim.SumResult, x[:])
}

func (e *Engine) rank() int {
	if e.comm == nil {
		return 0
	}
	return e.comm.Rank()
}

// Sum is x summed over the processes, which must all ask. With several it is computed in
// float32.
func (e *Engine) Sum(x float64) (float64, error) {
	if e.comm == nil {
		return x, nil
	}
	e.share = [exchanged]float32{float32(x)}
	err := e.sums(&e.share)
	return float64(e.share[0]), err
}

// Mean is x averaged over the processes, which must all ask.
func (e *Engine) Mean(x float64) (float64, error) {
	sum, err := e.Sum(x)
	return sum / float64(e.Processes()), err
}

// sharded reports whether a process has only its pieces of a region.
func (e *Engine) sharded(r graph.Region) bool {
	return e.shard.Size > 0 && (r == graph.ExpAvg || r == graph.ExpAvgSq) || e.shard.Full && (r == graph.Params || r == graph.Grads)
}
