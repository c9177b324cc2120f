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

	"github.com/sambatrain/sambatrain/graph/cpu/peak"
	"github.com/sambatrain/sambatrain/internal/rss"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// Options say what to measure.
type Options struct {
	// Steps is the number of timed steps, after one warm-up step.
	Steps int
	// Profile is the folder for a CPU profile of the timed steps and a trace of one step; "" writes
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
	// Peak is the peak of this machine's processor; nil on a GPU.
	Peak *peak.Peak `json:"peak,omitempty"`
	// ModelGFLOPs is the model's work divided by the median step time, in GFLOP/s, and MFU its
	// fraction of the peak.
	ModelGFLOPs float64 `json:"model_gflops"`
	MFU         float64 `json:"mfu,omitempty"`
	// Memory is the memory that the plan requests.
	Memory train.Bytes `json:"memory_bytes"`
	// Recomputed is the number of calls that the backward pass repeats to stay within a memory
	// budget.
	Recomputed int `json:"recomputed_calls,omitempty"`
	// PeakRSS is the largest amount of memory that this process has had, in bytes; 0 if the system
	// doesn't report it.
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
	s, err := newStepper(r, o.Log)
	if err != nil {
		return nil, err
	}
	defer s.close()
	in, err := train.InspectPlan(r, s.rec.programs[0].Plan())
	if err != nil {
		return nil, err
	}
	res := &Result{Device: s.rec.Name(), Name: r.Name, Precision: in.Precision, Memory: in.Memory, Recomputed: in.Recomputed}
	// On a GPU, timing each call slows the calls down, so their times come from separate steps.
	clock, apart := off, s.rec.threads() == 0
	if !apart {
		clock = timing
	}
	took, err := s.timed(o.Steps, clock, prof)
	if err != nil {
		return nil, err
	}
	if apart {
		if _, err := s.timed(o.Steps, timing, nil); err != nil {
			return nil, err
		}
	}
	res.Step = summary(r, took)
	res.ModelGFLOPs = in.FLOPsPerToken * res.TokensPerSecond / 1e9
	res.Ops = s.rec.ops()
	if prof != nil {
		if err := s.rec.during(tracing, s.next); err != nil {
			return nil, err
		}
		if res.Files, err = prof.write(s.rec); err != nil {
			return nil, err
		}
	}
	res.PeakRSS = rss.Peak()
	if threads := s.rec.threads(); threads > 0 {
		s.close() // measured with nothing else running
		res.setPeak(peak.Measure(threads))
	}
	return res, nil
}

// setPeak sets the rates relative to the limits of the machine.
func (r *Result) setPeak(p peak.Peak) {
	r.Peak, r.MFU = &p, r.ModelGFLOPs/p.GFLOPs
	for i := range r.Ops {
		o := &r.Ops[i]
		o.PeakShare = p.Share(o.flops, o.bytes, o.MS/1e3)
	}
}

// stepper does steps of a recipe's model on one batch of random tokens.
type stepper struct {
	rec             *recorder
	engine          *train.Engine
	step, total     int64
	tokens, targets []int32
}

func newStepper(r *recipes.Recipe, log *slog.Logger) (*stepper, error) {
	dev, err := train.NewDevice(r.Run, log)
	if err != nil {
		return nil, err
	}
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
// milliseconds.
func (s *stepper) timed(n int, clock mode, prof *profile) (took []float64, err error) {
	if err := prof.start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prof.stop()) }()
	for range n {
		started := time.Now()
		if err := s.rec.during(clock, s.next); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(started))/1e6)
		if clock == timing {
			s.rec.sample()
		}
	}
	return took, nil
}

func (s *stepper) close() error { return s.rec.Close() }

func summary(r *recipes.Recipe, took []float64) Step {
	s := Step{Rows: r.Train.BatchSize, MicroBatches: r.Train.BatchSize / r.Train.MicroBatch, SeqLen: r.Data.SeqLen,
		Steps: len(took), StepMS: median(took), MinStepMS: slices.Min(took), MaxStepMS: slices.Max(took)}
	s.TokensPerSecond = float64(s.Rows*s.SeqLen) / s.StepMS * 1e3
	return s
}
