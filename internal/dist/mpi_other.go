//go:build !linux

package dist

import (
	"errors"

	"github.com/sambatrain/sambatrain/graph"
)

// NewMPI fails: Open MPI is reached on Linux only.
func NewMPI() (graph.Comm, error) {
	return nil, errors.New("Open MPI: this build reaches it on Linux only")
}
