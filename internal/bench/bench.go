// Package bench measures the speed of a recipe's training step on this machine:
// time, memory, the share of each op, and a trace of the workers.
package bench

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/peak"
	"github.com/sambatrain/sambatrain/internal/rss"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// Options say what to measure.
type Options struct {
	// Steps is the number of timed steps, after one warm-up step.
	Steps int
	// Profile is the folder for a CPU profile of as many more steps and a trace of one; "" writes
	// none.
	Profile string
	Log     *slog.Logger
}

// Result is the speed of a recipe's step.
type Result struct {
	Device string `json:"device"`
	Name   string `json:"name"`
	// Precision is run.dtype, and which sublayers are exempt from bfloat16.
	Precision string `json:"precision"`
	Step
	// Peak is the peak of this machine's processor, measured between the steps; nil on a GPU.
	Peak *peak.Peak `json:"peak,omitempty"`
	// ModelGFLOPs is the model's work divided by the median step time, in GFLOP/s, and MFU its
	// fraction of the peak of float32, which bfloat16 can exceed.
	ModelGFLOPs float64 `json:"model_gflops"`
	MFU         float64 `json:"mfu,omitempty"`
	// Memory is the memory that the plan requests.
	Memory train.Bytes `json:"memory_bytes"`
	// Recomputed is the number of calls that the backward pass repeats to stay within a memory
	// budget.
	Recomputed int `json:"recomputed_calls,omitempty"`
	// PeakRSS is the largest amount of memory that this process has had, without what measures Peak,
	// in bytes; 0 if the system doesn't report it.
	PeakRSS int64 `json:"peak_rss_bytes,omitempty"`
	Ops     []Op  `json:"ops"`
	// Files are the files of the profile.
	Files []string `json:"files,omitempty"`
}

// Step is the duration of a step: all micro-batches, forward and backward, and the optimizer.
type Step struct {
	Rows         int `json:"rows"`
	MicroBatches int `json:"micro_batches"`
	SeqLen       int `json:"seq_len"`
	Steps        int `json:"steps"`
	// StepMS is the median.
	StepMS          float64 `json:"step_ms"`
	MinStepMS       float64 `json:"min_step_ms"`
	MaxStepMS       float64 `json:"max_step_ms"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Run times steps of a recipe's model on random tokens.
func Run(r *recipes.Recipe, o Options) (*Result, error) {
	if o.Steps < 1 {
		return nil, fmt.Errorf("bench: the number of steps must be at least 1, is %d", o.Steps)
	}
	prof, err := newProfile(o.Profile)
	if err != nil {
		return nil, err
	}
	dev, err := train.NewDevice(r.Run, o.Log)
	if err != nil {
		return nil, err
	}
	meter := newMeter(dev) // before the engine, which may take all memory that is left
	s, err := newStepper(dev, r, o.Log)
	if err != nil {
		return nil, err
	}
	defer s.close()
	in, err := train.InspectPlan(r, s.rec.programs[0].Plan())
	if err != nil {
		return nil, err
	}
	res := &Result{Device: s.rec.Name(), Name: r.Name, Precision: in.Precision, Memory: in.Memory, Recomputed: in.Recomputed}
	took, err := s.measure(o.Steps, meter)
	if err != nil {
		return nil, err
	}
	res.Step = summary(r, took)
	res.ModelGFLOPs = in.FLOPsPerToken * res.TokensPerSecond / 1e9
	res.Ops = s.rec.ops()
	if res.PeakRSS = rss.Peak(); res.PeakRSS > 0 && meter != nil {
		res.PeakRSS -= peak.MeterBytes
	}
	if prof != nil {
		if res.Files, err = prof.of(s, o.Steps); err != nil {
			return nil, err
		}
	}
	if meter != nil {
		res.setPeak(meter.Peak())
	}
	return res, nil
}

// newMeter returns what measures the limits of a CPU; nil for a GPU.
func newMeter(dev graph.Device) *peak.Meter {
	if n := threadsOf(dev); n > 0 {
		return peak.NewMeter(n)
	}
	return nil
}

// measure times n steps and each of their calls, in turns with the limits, and returns the duration of
// each step in milliseconds.
func (s *stepper) measure(n int, meter *peak.Meter) ([]float64, error) {
	if meter != nil {
		return s.timed(n, timing, meter.Turn)
	}
	// On a GPU, timing each call slows the calls down, so their times come from separate steps.
	took, err := s.timed(n, off, nil)
	if err == nil {
		_, err = s.timed(n, timing, nil)
	}
	return took, err
}

// setPeak sets the rates relative to the limits of the machine.
func (r *Result) setPeak(p peak.Peak) {
	r.Peak, r.MFU = &p, r.ModelGFLOPs/p.GFLOPs
	for i := range r.Ops {
		o := &r.Ops[i]
		o.PeakShare, o.MemoryBound = p.Share(o.flops, o.bytes, o.MS/1e3), p.MemoryBound(o.flops, o.bytes)
	}
}

// stepper does steps of a recipe's model on one batch of random tokens.
type stepper struct {
	rec             *recorder
	engine          *train.Engine
	step, total     int64
	tokens, targets []int32
}

// newStepper loads the model on a device, which it closes if that fails, and does a warm-up step.
func newStepper(dev graph.Device, r *recipes.Recipe, log *slog.Logger) (*stepper, error) {
	var err error
	s := &stepper{rec: &recorder{Device: dev}, total: r.Train.Steps}
	if s.engine, err = train.NewEngine(s.rec, &r.Model, r.Optim, train.ConfigOf(r)); err == nil {
		err = s.engine.Init(r.Train.Seed)
	}
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	n := r.Train.BatchSize * r.Data.SeqLen
	s.tokens, s.targets = make([]int32, n), make([]int32, n)
	for i := range n {
		s.tokens[i], s.targets[i] = int32(rng.IntN(r.Model.VocabSize)), int32(rng.IntN(r.Model.VocabSize))
	}
	started := time.Now()
	if err := s.next(); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	log.Info("warm-up step", "took", time.Since(started).Round(time.Millisecond), "device", dev.Name())
	return s, nil
}

// next does a step.
func (s *stepper) next() error {
	_, _, err := s.engine.Step(s.step, s.total, s.tokens, s.targets)
	s.step++
	return err
}

// timed does n steps, with or without timing each call, and returns the duration of each step in
// milliseconds. `between`, which may be nil, is called before each step and after the last.
func (s *stepper) timed(n int, clock mode, between func()) (took []float64, err error) {
	if between == nil {
		between = func() {}
	}
	for range n {
		between()
		started := time.Now()
		if err := s.rec.during(clock, s.next); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(started))/1e6)
		if clock == timing {
			s.rec.sample()
		}
	}
	between()
	return took, nil
}

func (s *stepper) close() error { return s.rec.Close() }

func summary(r *recipes.Recipe, took []float64) Step {
	s := Step{Rows: r.Train.BatchSize, MicroBatches: r.Train.BatchSize / r.Train.MicroBatch, SeqLen: r.Data.SeqLen,
		Steps: len(took), StepMS: median(took), MinStepMS: slices.Min(took), MaxStepMS: slices.Max(took)}
	s.TokensPerSecond = float64(s.Rows*s.SeqLen) / s.StepMS * 1e3
	return s
}
