package train

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// bucketElements is the number of gradients that processes exchange at a time: 64 MB, long enough
// for the full speed of a network, short enough to start early in the backward pass.
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

// shard leaves a plan's process only pieces of the parameters, if that is configured. train is the
// training's plan, or nil when making that plan itself.
func (c EngineConfig) shard(g *graph.Builder, train *graph.Plan) {
	if c.Comm != nil && c.Shard == recipes.ShardFull {
		g.SetSharding(optim.Sharding(c.Comm.Size(), c.ReduceBFloat16, train))
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
	e.sent = make([]float32, c.processes()*exchanged*float32Parts)
	sum, err := optim.BuildSum(len(e.sent))
	if err != nil {
		return err
	}
	e.exchange, err = e.dev.Load(sum, nil)
	return err
}

// loadMore loads the program for the micro-batches before a step's last one. It is the same program
// if there is nothing to exchange, and if gradients are reduced after each micro-batch because a
// process has no memory for all of its own.
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

// Processes returns the number of processes that train together.
func (e *Engine) Processes() int {
	if e.comm == nil {
		return 1
	}
	return e.comm.Size()
}

const (
	// exchanged is the number of values that the processes sum at a time.
	exchanged = 3
	// float32Parts is the number of float32 values whose sum represents a float64.
	float32Parts = 3
)

// sums replaces x by its sum over the processes, all of which must call it: exactly the float64 sum
// in rank order. The device sums float32 values, so each process has its own positions, where the
// others add zeros.
func (e *Engine) sums(x *[exchanged]float64) error {
	if e.comm == nil {
		return nil
	}
	const width = exchanged * float32Parts
	clear(e.sent)
	own := e.sent[e.rank()*width:]
	for i, v := range x {
		putParts(own[i*float32Parts:], v)
	}
	if err := e.exchange.WriteFloats(optim.SumInput, e.sent); err != nil {
		return err
	}
	if err := e.exchange.Run(); err != nil {
		return err
	}
	if err := e.exchange.Read(optim.SumResult, e.sent); err != nil {
		return err
	}
	*x = [exchanged]float64{}
	for at := 0; at < len(e.sent); at += width {
		for i := range x {
			x[i] += fromParts(e.sent[at+i*float32Parts:])
		}
	}
	return nil
}

// putParts writes x as a sum of float32 values, each of which holds what the ones before it round
// away.
func putParts(parts []float32, x float64) {
	for i := range float32Parts {
		parts[i] = float32(x)
		x -= float64(parts[i])
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return // x is not finite, or too large
		}
	}
}

func fromParts(parts []float32) float64 {
	x := 0.0
	for _, part := range parts[:float32Parts] {
		x += float64(part)
	}
	return x
}

func (e *Engine) rank() int {
	if e.comm == nil {
		return 0
	}
	return e.comm.Rank()
}

// Sum returns x summed over the processes, all of which must call it.
func (e *Engine) Sum(x float64) (float64, error) {
	all := [exchanged]float64{x}
	err := e.sums(&all)
	return all[0], err
}

// Mean returns x averaged over the processes, all of which must call it.
func (e *Engine) Mean(x float64) (float64, error) {
	sum, err := e.Sum(x)
	return sum / float64(e.Processes()), err
}

// sharded reports whether a process has only its pieces of a region.
func (e *Engine) sharded(r graph.Region) bool {
	return e.shard.Size > 0 && (r == graph.ExpAvg || r == graph.ExpAvgSq) || e.shard.Full && (r == graph.Params || r == graph.Grads)
}
