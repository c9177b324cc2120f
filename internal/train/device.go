package train

import (
	"fmt"
	"log/slog"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/recipes"
)

// NewDevice opens the device that a recipe's run section names. auto is the GPU
// where there is one; log hears which it became.
func NewDevice(r recipes.Run, log *slog.Logger) (graph.Device, error) {
	switch r.Device {
	case recipes.CUDA:
		return cuda.New(0)
	case recipes.Auto:
		dev, err := cuda.New(0)
		if err == nil {
			return dev, nil
		}
		if r.Mixed() {
			return nil, fmt.Errorf("run.dtype: %s wants a GPU, and run.device auto found none: %w", r.DType, err)
		}
		log.Info("no GPU to use: computing on the CPU", "reason", err)
	}
	return cpu.New(r.Threads)
}
