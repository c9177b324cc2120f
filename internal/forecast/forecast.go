// Package forecast predicts how fast a recipe trains on other GPUs: the plans of its steps are
// built as for a GPU, and timed with measured op times and a model of the network.
package forecast

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// Machine is what a forecast is for.
type Machine struct {
	Calibration  *Calibration
	Interconnect *Interconnect
	// Contention is the fraction by which kernels are slower while a collective is running, which
	// uses some of the GPU's SMs and bandwidth.
	Contention float64
}

// Layout is how a step is divided. Zero values are chosen freely.
type Layout struct {
	Shard      string
	MicroBatch int
}

// Forecast is a prediction for one layout on a number of GPUs.
type Forecast struct {
	GPUs       int    `json:"gpus"`
	Shard      string `json:"shard"`
	MicroBatch int    `json:"micro_batch"`
	// MicroBatches is the number of micro-batches per process and step.
	MicroBatches int `json:"micro_batches"`
	// Recomputed is the number of kernel calls that are repeated to fit in memory.
	Recomputed int `json:"recomputed_calls"`
	// MemoryBytes is the planned memory of a step on each GPU.
	MemoryBytes int64   `json:"memory_bytes"`
	StepMS      float64 `json:"step_ms"`
	// WaitMS is the part of a step in which a GPU computes nothing and waits for others.
	WaitMS          float64 `json:"wait_ms"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	// MFU is the model's work relative to the data sheet's peak.
	MFU   float64 `json:"mfu"`
	Steps int64   `json:"steps"`
	Days  float64 `json:"days"`
	// Cost is for all GPUs until the last step, in US dollars.
	Cost float64 `json:"cost"`
	// Guessed are ops that take a significant part of a step and whose speed was not measured.
	Guessed []string `json:"guessed_ops,omitempty"`
}

// guessedShare is the fraction of a step from which a guessed op is reported.
const guessedShare = 0.005

// shards returns the values of run.shard that make sense for a number of processes.
func shards(gpus int) []string {
	if gpus == 1 {
		return []string{recipes.ShardNone}
	}
	return recipes.Shards
}

// Choose forecasts all layouts that l allows on a number of GPUs, the fastest first. The error says
// why there is none.
func (m *Machine) Choose(r *recipes.Recipe, gpus int, l Layout) ([]*Forecast, error) {
	rows := r.Train.BatchSize
	switch {
	case gpus < 1:
		return nil, fmt.Errorf("--gpus: must be at least 1, is %d", gpus)
	case rows < gpus:
		return nil, fmt.Errorf("train.batch_size: %d rows are too few for %d GPUs, each of which needs one: raise it", rows, gpus)
	case rows%gpus != 0:
		return nil, fmt.Errorf("train.batch_size: %d rows are not a multiple of %d GPUs", rows, gpus)
	}
	kinds, sizes := shards(gpus), microBatches(rows/gpus, r.Train.MicroBatch)
	if l.Shard != "" {
		kinds = []string{l.Shard}
	}
	if l.MicroBatch > 0 {
		sizes = []int{l.MicroBatch}
	}
	var list []*Forecast
	var errs []error
	for _, shard := range kinds {
		for _, size := range sizes {
			f, err := m.Predict(r, gpus, Layout{shard, size})
			if err != nil {
				errs = append(errs, err)
				break // larger ones take more memory
			}
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(list, func(a, b *Forecast) int {
		switch {
		case a.StepMS < b.StepMS:
			return -1
		case a.StepMS > b.StepMS:
			return 1
		}
		return 0
	})
	return list, nil
}

// microBatches returns the sizes to try for a process with `share` rows of a step.
func microBatches(share, recipe int) []int {
	list := []int{}
	for n := 1; n <= 32; n *= 2 {
		if share%n == 0 {
			list = append(list, n)
		}
	}
	if recipe <= share && share%recipe == 0 && !slices.Contains(list, recipe) {
		list = append(list, recipe)
	}
	slices.Sort(list)
	return list
}

// Predict forecasts one layout, both parts of which are given.
func (m *Machine) Predict(r *recipes.Recipe, gpus int, l Layout) (*Forecast, error) {
	if !r.Run.Mixed() {
		return nil, fmt.Errorf("run.dtype: speeds are known of %s alone, the recipe has %s; add --dtype %s", recipes.BFloat16, r.Run.DType, recipes.BFloat16)
	}
	share := r.Train.BatchSize / gpus
	if l.MicroBatch < 1 || share%l.MicroBatch != 0 {
		return nil, fmt.Errorf("train.micro_batch: %d does not divide the %d rows that each of %d GPUs has", l.MicroBatch, share, gpus)
	}
	var comm graph.Comm
	if gpus > 1 {
		comm = paperComm{size: gpus}
	}
	own := *r
	own.Train.MicroBatch, own.Run.Shard = l.MicroBatch, l.Shard
	c := train.ConfigAmong(&own, comm)
	c.Mixed = true // wherever the recipe itself would run
	c.MemoryBudget = int64(m.Calibration.Memory)
	dev := &paper{free: c.MemoryBudget}
	e, err := train.NewEngine(dev, &r.Model, r.Optim, c)
	if err != nil {
		return nil, fmt.Errorf("%d GPUs, run.shard %s, micro-batches of %d: %w", gpus, l.Shard, l.MicroBatch, err)
	}
	f := &Forecast{GPUs: gpus, Shard: l.Shard, MicroBatch: l.MicroBatch, MicroBatches: share / l.MicroBatch, Steps: r.Train.Steps}
	for _, n := range dev.sizes {
		f.MemoryBytes += 4 * int64(n)
	}
	guessed := map[string]float64{}
	last, more, update := e.Plans()
	for _, n := range last.Repeated() {
		f.Recomputed += n
	}
	step := m.walk(more, gpus, guessed).times(f.MicroBatches - 1).plus(m.walk(last, gpus, guessed)).plus(m.walk(update, gpus, guessed))
	step = step.plus(m.around(dev, c.Accumulate, gpus))
	if gpus > 1 {
		longer := m.Calibration.Several * step.seconds
		step = step.plus(stretch{longer, longer})
	}
	maps.DeleteFunc(guessed, func(_ string, t float64) bool { return t < guessedShare*step.seconds })
	f.Guessed = slices.Sorted(maps.Keys(guessed))
	in, err := train.InspectPlan(r, last)
	if err != nil {
		return nil, err
	}
	tokens := float64(r.Train.BatchSize * r.Data.SeqLen)
	f.StepMS, f.WaitMS, f.TokensPerSecond = 1e3*step.seconds, 1e3*step.waits, tokens/step.seconds
	f.MFU = in.FLOPsPerToken * f.TokensPerSecond / (1e12 * m.Calibration.PeakTFLOPs * float64(gpus))
	seconds := float64(f.Steps) * step.seconds
	f.Days, f.Cost = seconds/86400, seconds/3600*m.Calibration.Price*float64(gpus)
	return f, nil
}

// around is what a step does besides its programs: it clears gradients that are accumulated, and
// exchanges with the other processes its loss and whether to stop.
func (m *Machine) around(dev *paper, accumulate bool, gpus int) stretch {
	var s stretch
	if accumulate {
		s.seconds = m.Calibration.Moves.seconds(graph.Cost{Bytes: 4 * float64(dev.sizes[graph.Grads])})
	}
	if gpus > 1 {
		const host = 40e-6 // numbers go to the GPU, a graph starts, and numbers come back
		told := 2 * (host + m.Interconnect.seconds(graph.AllReduce, 12, gpus))
		s = s.plus(stretch{told, told})
	}
	return s
}

// Counts parses numbers of GPUs: 1,8,64, or 1-4096 for the powers of two in between.
func Counts(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		var from, to int
		if _, err := fmt.Sscanf(part, "%d-%d", &from, &to); err != nil {
			if _, err := fmt.Sscanf(part, "%d", &from); err != nil || fmt.Sprint(from) != part {
				return nil, fmt.Errorf("must be numbers, as in 1,8,64 or 1-4096, is %q", text)
			}
			to = from
		} else if fmt.Sprintf("%d-%d", from, to) != part {
			return nil, fmt.Errorf("must be numbers, as in 1,8,64 or 1-4096, is %q", text)
		}
		if from < 1 || to > math.MaxInt32 {
			return nil, fmt.Errorf("must be 1 to %d, is %q", math.MaxInt32, text)
		}
		if to < from {
			return nil, fmt.Errorf("must rise from first to last, is %q", text)
		}
		for n := from; n <= to; n *= 2 {
			list = append(list, n)
		}
	}
	return list, nil
}
