//go:build !linux

package cuda

import (
	"errors"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// Device is one NVIDIA GPU. There is none on this system.
type Device struct{ graph.Device }

// Libraries says which libraries are in use.
func (*Device) Libraries() []string { return nil }

// AllowTF32 does nothing.
func (*Device) AllowTF32() {}

// Count is how many GPUs there are.
func Count() int { return 0 }

// TuneProducts does nothing.
func (*Device) TuneProducts() {}

// Tuned counts nothing.
func (*Device) Tuned() (timed, known int, took time.Duration) { return 0, 0, 0 }

// Within runs f.
func (*Device) Within(f func() error) error { return f() }

// New fails: CUDA is reached on Linux only.
func New(int) (*Device, error) {
	return nil, errors.New("cuda: this build reaches NVIDIA GPUs on Linux only; use --device cpu")
}
