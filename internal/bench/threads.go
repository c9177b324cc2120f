package bench

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// Scaling is a recipe's step with several numbers of threads.
type Scaling struct {
	Name    string    `json:"name"`
	Threads []Threads `json:"threads"`
}

// Threads is the step with one number of threads.
type Threads struct {
	Threads int    `json:"threads"`
	Device  string `json:"device"`
	Step
	// Speedup is relative to the first number of threads: the median over rounds, in each of which
	// every number of threads does one step.
	Speedup    float64 `json:"speedup"`
	MinSpeedup float64 `json:"min_speedup"`
	MaxSpeedup float64 `json:"max_speedup"`
}

// RunThreads times steps with each number of threads in turn, so that other load on the machine
// affects all of them. It needs the memory of one run for each.
func RunThreads(r *recipes.Recipe, threads []int, rounds int, log *slog.Logger) (*Scaling, error) {
	if rounds < 1 {
		return nil, fmt.Errorf("bench: the number of steps must be at least 1, is %d", rounds)
	}
	var steppers []*stepper
	for _, n := range threads {
		one := *r
		one.Run.Threads = n
		if err := one.Run.Validate(); err != nil {
			return nil, err
		}
		dev, err := train.NewDevice(one.Run, log)
		if err != nil {
			return nil, err
		}
		s, err := newStepper(dev, &one, log)
		if err != nil {
			return nil, err
		}
		defer s.close()
		if _, ok := s.rec.Device.(*cpu.Device); !ok {
			return nil, fmt.Errorf("bench: %s has no threads to compare; say --device cpu", s.rec.Name())
		}
		steppers = append(steppers, s)
	}
	took := make([][]float64, len(steppers))
	for range rounds {
		for i, s := range steppers {
			ms, err := s.timed(1, off, nil)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], ms...)
		}
	}
	res := &Scaling{Name: r.Name}
	for i, s := range steppers {
		gain := make([]float64, rounds)
		for k := range gain {
			gain[k] = took[0][k] / took[i][k]
		}
		res.Threads = append(res.Threads, Threads{Threads: s.rec.threads(), Device: s.rec.Name(), Step: summary(r, took[i]),
			Speedup: median(gain), MinSpeedup: slices.Min(gain), MaxSpeedup: slices.Max(gain)})
	}
	return res, nil
}
