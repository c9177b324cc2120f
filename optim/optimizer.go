package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
)

// ErrNotFinite is returned by Step when the gradient contains an infinity or a NaN. The parameters
// and the moments are unchanged.
var ErrNotFinite = errors.New("the gradient is not finite")

// Optimizer runs AdamW over a device's memory.
type Optimizer struct {
	// Skipped is the number of updates left out so far: the bias correction counts only those that
	// were done.
	Skipped int64

	settings AdamW
	update   graph.Program
	hyper    [adamw.HyperSize]float32
	norm     [1]float32
}

// New makes the optimizer of n parameters with the layout of params. mem's regions Params, Grads,
// ExpAvg and ExpAvgSq have the lengths given by the shard. With mixed it keeps Shadow, half as long
// as Params, up to date.
func New(dev graph.Device, mem graph.Memory, params []graph.ParamSlot, n int, o AdamW, mixed bool, shard Shard) (*Optimizer, error) {
	plan, err := o.Build(params, n, mixed, shard)
	if err != nil {
		return nil, err
	}
	update, err := dev.Load(plan, mem)
	if err != nil {
		return nil, fmt.Errorf("optimizer: %w", err)
	}
	return &Optimizer{settings: o, update: update}, nil
}

// Plan returns the plan of an update.
func (o *Optimizer) Plan() *graph.Plan { return o.update.Plan() }

// Step does update number `step`, counted from 0, of totalSteps, with the mean gradient of
// microBatches (those of all processes), whose sum is in Grads. gradNorm is the L2 norm of the mean
// gradient before clipping; if it is not finite, the error is ErrNotFinite and nothing was updated.
func (o *Optimizer) Step(step, totalSteps int64, microBatches int) (gradNorm float64, err error) {
	if microBatches < 1 {
		return 0, fmt.Errorf("optimizer: step %d: %d micro-batches make no gradient", step, microBatches)
	}
	scale := 1 / float64(microBatches)
	t := float64(step + 1 - o.Skipped)
	o.hyper[adamw.LR] = float32(o.settings.LR(step, totalSteps))
	o.hyper[adamw.BiasCorrection1] = float32(1 - math.Pow(o.settings.Betas[0], t))
	o.hyper[adamw.BiasCorrection2] = float32(1 - math.Pow(o.settings.Betas[1], t))
	o.hyper[adamw.Scale] = float32(scale)
	if err := o.update.WriteFloats(hyperInput, o.hyper[:]); err != nil {
		return 0, err
	}
	if err := o.update.Run(); err != nil {
		return 0, err
	}
	if err := o.update.Read(gradNormResult, o.norm[:]); err != nil {
		return 0, err
	}
	gradNorm = scale * float64(o.norm[0])
	if math.IsInf(gradNorm, 0) || math.IsNaN(gradNorm) {
		return gradNorm, fmt.Errorf("step %d: %w (norm %v)", step, ErrNotFinite, gradNorm)
	}
	return gradNorm, nil
}
