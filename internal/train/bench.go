package train

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/recipes"
)

// Benchmark is the speed of a recipe's step on this machine.
type Benchmark struct {
	Device string `json:"device"`
	Name   string `json:"name"`
	Rows   int    `json:"rows"`
	SeqLen int    `json:"seq_len"`
	Steps  int    `json:"steps"`
	// StepMS is the median time of a step: forward, backward and optimizer.
	StepMS          float64 `json:"step_ms"`
	MinStepMS       float64 `json:"min_step_ms"`
	MaxStepMS       float64 `json:"max_step_ms"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	// ModelGFLOPs is the model's work over the median step's time, in GFLOP/s.
	ModelGFLOPs float64   `json:"model_gflops"`
	Ops         []OpBench `json:"ops"`
}

// OpBench is one op's part of a step's forward and backward pass.
type OpBench struct {
	Op    string  `json:"op"`
	Calls int     `json:"calls"`
	MS    float64 `json:"ms"`
	// Share is the part of the time of all ops.
	Share  float64 `json:"share"`
	GFLOPs float64 `json:"gflops"`
	GBs    float64 `json:"gb_per_s"`
}

// Bench times steps of a recipe's model on random tokens, after one to warm up.
// It trains on one micro-batch a step.
func Bench(r *recipes.Recipe, steps int, log *slog.Logger) (*Benchmark, error) {
	if steps < 1 {
		return nil, fmt.Errorf("bench: the number of steps must be at least 1, is %d", steps)
	}
	dev, err := NewDevice(r.Run, log)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	b, t := r.Train.MicroBatch, r.Data.SeqLen
	e, err := NewEngine(dev, &r.Model, r.Optim, EngineConfig{MicroBatch: b, SeqLen: t, Mixed: r.Run.Mixed(), MemoryBudget: int64(r.Run.MemoryBudget)})
	if err != nil {
		return nil, err
	}
	if err := e.Init(r.Train.Seed); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	tokens, targets := make([]int32, b*t), make([]int32, b*t)
	for i := range tokens {
		tokens[i], targets[i] = int32(rng.IntN(r.Model.VocabSize)), int32(rng.IntN(r.Model.VocabSize))
	}
	var took []float64
	for i := range steps + 1 {
		started := time.Now()
		if _, _, err := e.Step(int64(i), int64(steps+1), tokens, targets); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, float64(time.Since(started))/1e6)
		}
	}
	slices.Sort(took)
	stack, err := r.Model.Sublayers()
	if err != nil {
		return nil, err
	}
	res := &Benchmark{Device: dev.Name(), Name: r.Name, Rows: b, SeqLen: t, Steps: steps,
		StepMS: took[len(took)/2], MinStepMS: took[0], MaxStepMS: took[len(took)-1]}
	res.TokensPerSecond = float64(b*t) / res.StepMS * 1e3
	res.ModelGFLOPs = FLOPsPerToken(&r.Model, e.Params(), stack, t) * res.TokensPerSecond / 1e9
	res.Ops, err = benchOps(e.Program(), steps)
	return res, err
}

// benchOps runs the forward and backward pass with a clock between the calls.
func benchOps(p graph.Program, runs int) ([]OpBench, error) {
	plan := p.Plan()
	times := make([]time.Duration, len(plan.Steps))
	for range runs {
		if err := p.RunTimed(times); err != nil {
			return nil, err
		}
	}
	var list []OpBench
	index := map[string]int{}
	var total time.Duration
	for i, s := range plan.Steps {
		k, ok := index[s.Spec.Name]
		if !ok {
			k = len(list)
			index[s.Spec.Name] = k
			list = append(list, OpBench{Op: s.Spec.Name})
		}
		o := &list[k]
		o.Calls++
		o.MS += float64(times[i]) / 1e6 / float64(runs)
		total += times[i]
		if s.Spec.Cost != nil {
			c := s.Spec.Cost(s.Dims)
			o.GFLOPs += c.FLOPs
			o.GBs += c.Bytes
		}
	}
	for k := range list {
		o := &list[k]
		o.Share = o.MS * float64(runs) * 1e6 / float64(total)
		o.GFLOPs /= o.MS * 1e6
		o.GBs /= o.MS * 1e6
	}
	slices.SortStableFunc(list, func(a, b OpBench) int {
		switch {
		case a.MS > b.MS:
			return -1
		case a.MS < b.MS:
			return 1
		}
		return 0
	})
	return list, nil
}
