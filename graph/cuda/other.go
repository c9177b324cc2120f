//go:build !linux

package cuda

import (
	"errors"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// Device is one NVIDIA GPU. There is none on this system.
type Device struct{ graph.Device }

// Libraries returns none.
func (*Device) Libraries() []string { return nil }

// AllowTF32 does nothing.
func (*Device) AllowTF32() {}

// Count is the number of GPUs.
func Count() int { return 0 }

// TuneProducts does nothing.
func (*Device) TuneProducts() {}

// Tuned returns zeros.
func (*Device) Tuned() (timed, known int, took time.Duration) { return 0, 0, 0 }

// Within runs f.
func (*Device) Within(f func() error) error { return f() }

// New fails: CUDA is supported on Linux only.
func New(int) (*Device, error) {
	return nil, errors.New("cuda: this build reaches NVIDIA GPUs on Linux only; use --device cpu")
}
