//go:build !linux

package cuda

import (
	"errors"

	"github.com/sambatrain/sambatrain/graph"
)

// New fails: CUDA is reached on Linux only.
func New(int) (graph.Device, error) {
	return nil, errors.New("cuda: this build reaches NVIDIA GPUs on Linux only; use --device cpu")
}
