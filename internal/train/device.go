package train

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/recipes"
)

// NewDevice opens the device that a recipe's run section names. auto means the GPU if there is one;
// log is told which device it is.
func NewDevice(r recipes.Run, log *slog.Logger) (graph.Device, error) {
	return newDevice(r, 0, log)
}

// newDevice is NewDevice for one of several processes on this machine, each with its own GPU. A
// launcher may show each process only its own GPU.
func newDevice(r recipes.Run, localRank int, log *slog.Logger) (graph.Device, error) {
	if r.Device != recipes.CPU {
		ordinal := localRank
		if cuda.Count() == 1 {
			ordinal = 0
		}
		dev, err := cuda.New(ordinal)
		switch {
		case err == nil:
			if r.DType == recipes.TF32 {
				dev.AllowTF32()
			}
			if r.TuneProducts {
				dev.TuneProducts()
			}
			return dev, nil
		case r.Device == recipes.CUDA:
			return nil, fmt.Errorf("run.device: %w", err)
		case r.DType == recipes.TF32:
			return nil, fmt.Errorf("run.dtype: tf32 needs a GPU, and none is available: %w", err)
		}
		log.Info("no usable GPU: computing on the CPU", "reason", err)
	}
	dev, err := cpu.New(r.Threads)
	if err != nil {
		return nil, err // not dev: a nil pointer in an interface would not be a nil device
	}
	if r.Mixed() {
		dev.RoundFactors()
	}
	return dev, nil
}

// logTuned logs where the algorithms of a GPU's products come from, if that is new.
func logTuned(dev graph.Device, log *slog.Logger) {
	gpu, ok := dev.(*cuda.Device)
	if !ok {
		return
	}
	if timed, known, took := gpu.Tuned(); timed+known > 0 {
		log.Info("algorithms of matrix products", "timed", timed, "took", took.Round(time.Millisecond), "timed_before", known)
	}
}

// mixedPlan reports whether a run of that precision keeps tensors in bfloat16. On the CPU it
// doesn't: there, products round their operands (docs/adr/0006).
func mixedPlan(dev graph.Device, bfloat16 bool) bool {
	_, onHost := dev.(*cpu.Device)
	return bfloat16 && !onHost
}
