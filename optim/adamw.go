// Package optim turns gradients into updates: AdamW with clipping by the global norm, and the
// learning rate schedule.
package optim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// AdamW is the `optim:` section of a recipe. Decode it over DefaultAdamW, which
// holds the values of the keys that a recipe may leave out.
type AdamW struct {
	// PeakLR is the learning rate at the end of the warm-up.
	PeakLR float64 `yaml:"lr" json:"lr"`

	// Schedule is the shape of the learning rate after the warm-up, see Schedules.
	Schedule string `yaml:"schedule" json:"schedule"`

	// DecayFraction is the fraction of all updates, at the end of the run, over which the schedule
	// wsd decays. The default is 0.2.
	DecayFraction *float64 `yaml:"decay_fraction,omitempty" json:"decay_fraction,omitempty"`

	// MinLR is the learning rate at the end of the run. The default is a tenth of PeakLR.
	MinLR *float64 `yaml:"min_lr,omitempty" json:"min_lr,omitempty"`

	// The learning rate rises from 0 over WarmupSteps updates, or over WarmupFraction of all
	// updates, rounded. At most one of them may be set; the default is a WarmupFraction of 0.01.
	WarmupSteps    *int64   `yaml:"warmup_steps,omitempty" json:"warmup_steps,omitempty"`
	WarmupFraction *float64 `yaml:"warmup_fraction,omitempty" json:"warmup_fraction,omitempty"`

	// Betas are the decay rates of the first and the second moment.
	Betas []float64 `yaml:"betas" json:"betas"`

	// Eps keeps the update of a parameter without gradients finite.
	Eps float64 `yaml:"eps" json:"eps"`

	// WeightDecay is decoupled: each update subtracts the learning rate times WeightDecay times the
	// parameter.
	WeightDecay float64 `yaml:"weight_decay" json:"weight_decay"`

	// Decayed selects the parameters that WeightDecay applies to, see Decays.
	Decayed string `yaml:"decayed" json:"decayed"`

	// GradClip is the largest L2 norm of the whole gradient; a longer one is scaled down to it. 0
	// means no clipping.
	GradClip float64 `yaml:"grad_clip" json:"grad_clip"`
}

const (
	defaultMinLRShare     = 0.1
	defaultWarmupFraction = 0.01
	defaultDecayFraction  = 0.2
)

// Schedules of the learning rate after its warm-up.
const (
	Cosine   = "cosine"   // half a cosine from PeakLR to MinLR
	Linear   = "linear"   // a line from PeakLR to MinLR
	WSD      = "wsd"      // constant PeakLR, and at the end a line to MinLR (warm-up, stable, decay; arXiv 2405.18392)
	Constant = "constant" // PeakLR to the end
)

// Schedules are the values that Schedule may have.
var Schedules = []string{Cosine, Linear, WSD, Constant}

// DefaultAdamW returns the settings that Samba was trained with (arXiv 2406.07522 and its
// pretrain.py).
func DefaultAdamW() AdamW {
	return AdamW{PeakLR: 4e-4, Schedule: Cosine, Betas: []float64{0.9, 0.95}, Eps: 1e-8, WeightDecay: 0.1, Decayed: DecayAll, GradClip: 1}
}

// Validate reports the first bad key.
func (o AdamW) Validate() error {
	switch {
	case !(o.PeakLR > 0) || math.IsInf(o.PeakLR, 0):
		return fmt.Errorf("optim.lr: must be positive, is %v", o.PeakLR)
	case !positive32(o.PeakLR):
		return fmt.Errorf("optim.lr: must be positive and finite in float32, is %v", o.PeakLR)
	case !slices.Contains(Schedules, o.Schedule):
		return fmt.Errorf("optim.schedule: must be one of %s, is %q", strings.Join(Schedules, ", "), o.Schedule)
	case o.DecayFraction != nil && o.Schedule != WSD:
		return fmt.Errorf("optim.decay_fraction: only applies to the schedule %s, not %s: leave it out", WSD, o.Schedule)
	case o.DecayFraction != nil && !(*o.DecayFraction > 0 && *o.DecayFraction <= 1):
		return fmt.Errorf("optim.decay_fraction: must be above 0 and at most 1, is %v", *o.DecayFraction)
	case o.MinLR != nil && o.Schedule == Constant:
		return fmt.Errorf("optim.min_lr: does not apply to the schedule %s, which ends with lr: leave it out", Constant)
	case o.MinLR != nil && !(*o.MinLR >= 0 && *o.MinLR <= o.PeakLR):
		return fmt.Errorf("optim.min_lr: must be at least 0 and at most lr (%v), is %v", o.PeakLR, *o.MinLR)
	case o.WarmupSteps != nil && o.WarmupFraction != nil:
		return errors.New("optim.warmup_fraction: can't be given along with warmup_steps: leave one of them out")
	case o.WarmupSteps != nil && *o.WarmupSteps < 0:
		return fmt.Errorf("optim.warmup_steps: must be at least 0, is %d", *o.WarmupSteps)
	case o.WarmupFraction != nil && !(*o.WarmupFraction >= 0 && *o.WarmupFraction < 1):
		return fmt.Errorf("optim.warmup_fraction: must be at least 0 and below 1, is %v", *o.WarmupFraction)
	case len(o.Betas) != 2:
		return fmt.Errorf("optim.betas: must be two numbers such as [0.9, 0.95], is %v", o.Betas)
	}
	for i, beta := range o.Betas {
		if !(beta >= 0 && beta < 1) {
			return fmt.Errorf("optim.betas[%d]: must be at least 0 and below 1, is %v", i, beta)
		}
	}
	switch {
	case !positive32(o.Eps):
		return fmt.Errorf("optim.eps: must be positive and finite in float32, is %v", o.Eps)
	case !(o.WeightDecay >= 0) || math.IsInf(o.WeightDecay, 0):
		return fmt.Errorf("optim.weight_decay: must be at least 0, is %v", o.WeightDecay)
	case o.WeightDecay > math.MaxFloat32:
		return fmt.Errorf("optim.weight_decay: must be at least 0 and finite in float32, is %v", o.WeightDecay)
	case !slices.Contains(Decays, o.Decayed):
		return fmt.Errorf("optim.decayed: must be one of %s, is %q", strings.Join(Decays, ", "), o.Decayed)
	case !(o.GradClip >= 0) || math.IsInf(o.GradClip, 0):
		return fmt.Errorf("optim.grad_clip: must be positive, or 0 for no clipping, is %v", o.GradClip)
	case o.GradClip > 0 && !positive32(o.GradClip):
		return fmt.Errorf("optim.grad_clip: must be positive and finite in float32, or 0 for no clipping, is %v", o.GradClip)
	}
	return nil
}

// positive32 reports whether x is positive and finite in float32, in which devices compute.
func positive32(x float64) bool {
	y := float32(x)
	return y > 0 && y <= math.MaxFloat32
}

// LR returns the learning rate of an update, counted from 0, in a run of totalSteps: linear from 0
// during the warm-up, then following Schedule to the end, where it stays.
func (o AdamW) LR(step, totalSteps int64) float64 {
	from, last := o.Warmup(totalSteps), o.minLR()
	if step < from {
		return o.PeakLR * float64(step) / float64(from)
	}
	switch o.Schedule {
	case Constant:
		return o.PeakLR
	case WSD:
		from = max(from, totalSteps-o.decay(totalSteps))
	}
	switch {
	case step >= totalSteps:
		return last
	case step < from:
		return o.PeakLR
	}
	done := float64(step-from) / float64(totalSteps-from)
	left := 1 - done
	if o.Schedule == Cosine {
		left = 0.5 * (1 + math.Cos(math.Pi*done))
	}
	return last + left*(o.PeakLR-last)
}

// decay returns the number of updates over which the schedule wsd decays.
func (o AdamW) decay(totalSteps int64) int64 {
	fraction := defaultDecayFraction
	if o.DecayFraction != nil {
		fraction = *o.DecayFraction
	}
	return int64(math.Round(fraction * float64(totalSteps)))
}

// Warmup returns the number of updates of the warm-up in a run of totalSteps.
func (o AdamW) Warmup(totalSteps int64) int64 {
	if o.WarmupSteps != nil {
		return *o.WarmupSteps
	}
	fraction := defaultWarmupFraction
	if o.WarmupFraction != nil {
		fraction = *o.WarmupFraction
	}
	return int64(math.Round(fraction * float64(totalSteps)))
}

func (o AdamW) minLR() float64 {
	if o.MinLR != nil {
		return *o.MinLR
	}
	return o.PeakLR * defaultMinLRShare
}
