package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
)

// ErrNotFinite is what Step returns when the gradient holds an infinity or a NaN.
// The parameters and the moments are as before.
var ErrNotFinite = errors.New("the gradient is not finite")

// Optimizer runs AdamW over a device's memory.
type Optimizer struct {
	settings AdamW
	mixed    bool
	n        int
	dev      graph.Device
	mem      graph.Memory
	update   graph.Program // from Grads
	sum      *accumulation // nil until the first Accumulate
	summed   int           // micro-batches since the last step
	hyper    [adamw.HyperSize]float32
	norm     [1]float32
}

// accumulation is what only runs with several micro-batches need.
type accumulation struct {
	first, next graph.Program // Grads into Accum
	update      graph.Program // from Accum
}

// New makes the optimizer of n parameters, the length of mem's regions Params,
// Grads, ExpAvg and ExpAvgSq. Accumulate also wants Accum. mixed keeps Shadow, half
// as long, up to date.
func New(dev graph.Device, mem graph.Memory, n int, o AdamW, mixed bool) (*Optimizer, error) {
	plan, err := o.Build(n, false, mixed)
	if err != nil {
		return nil, err
	}
	update, err := dev.Load(plan, mem)
	if err != nil {
		return nil, fmt.Errorf("optimizer: %w", err)
	}
	return &Optimizer{settings: o, mixed: mixed, n: n, dev: dev, mem: mem, update: update}, nil
}

// Accumulate adds the gradients of one of several micro-batches to the step's
// sum. The first after a step starts a new sum.
func (o *Optimizer) Accumulate() error {
	if o.sum == nil {
		sum, err := o.loadAccumulation()
		if err != nil {
			return fmt.Errorf("optimizer: %w", err)
		}
		o.sum = sum
	}
	program := o.sum.next
	if o.summed == 0 {
		program = o.sum.first
	}
	if err := program.Run(); err != nil {
		return err
	}
	o.summed++
	return nil
}

func (o *Optimizer) loadAccumulation() (*accumulation, error) {
	a := &accumulation{}
	for _, p := range []struct {
		program *graph.Program
		build   func() (*graph.Plan, error)
	}{
		{&a.first, func() (*graph.Plan, error) { return buildAccumulate(o.n, true) }},
		{&a.next, func() (*graph.Plan, error) { return buildAccumulate(o.n, false) }},
		{&a.update, func() (*graph.Plan, error) { return o.settings.Build(o.n, true, o.mixed) }},
	} {
		plan, err := p.build()
		if err != nil {
			return nil, err
		}
		if *p.program, err = o.dev.Load(plan, o.mem); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Step does update number step, counted from 0, of totalSteps, with the mean
// gradient of microBatches. Of 1 micro-batch it is read from Grads; of more, each
// must have been accumulated. gradNorm is the mean gradient's L2 norm before
// clipping; where it is not finite, the error is ErrNotFinite and nothing was
// updated.
func (o *Optimizer) Step(step, totalSteps int64, microBatches int) (gradNorm float64, err error) {
	program := o.update
	switch {
	case microBatches < 1:
		return 0, fmt.Errorf("optimizer: step %d: %d micro-batches make no gradient", step, microBatches)
	case microBatches == 1 && o.summed > 0, microBatches > 1 && o.summed != microBatches:
		return 0, fmt.Errorf("optimizer: step %d: %d micro-batches were accumulated for a step of %d", step, o.summed, microBatches)
	case microBatches > 1:
		program = o.sum.update
	}
	scale := 1 / float64(microBatches)
	t := float64(step + 1)
	o.hyper[adamw.LR] = float32(o.settings.LR(step, totalSteps))
	o.hyper[adamw.BiasCorrection1] = float32(1 - math.Pow(o.settings.Betas[0], t))
	o.hyper[adamw.BiasCorrection2] = float32(1 - math.Pow(o.settings.Betas[1], t))
	o.hyper[adamw.Scale] = float32(scale)
	if err := program.WriteFloats(hyperInput, o.hyper[:]); err != nil {
		return 0, err
	}
	if err := program.Run(); err != nil {
		return 0, err
	}
	o.summed = 0
	if err := program.Read(gradNormResult, o.norm[:]); err != nil {
		return 0, err
	}
	gradNorm = scale * float64(o.norm[0])
	if math.IsInf(gradNorm, 0) || math.IsNaN(gradNorm) {
		return gradNorm, fmt.Errorf("step %d: %w (norm %v)", step, ErrNotFinite, gradNorm)
	}
	return gradNorm, nil
}
