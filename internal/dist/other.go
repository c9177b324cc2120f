//go:build !linux

package dist

import (
	"errors"

	"github.com/sambatrain/sambatrain/graph"
)

// NewMPI fails: Open MPI is supported only on Linux.
func NewMPI() (graph.Comm, error) {
	return nil, errors.New("Open MPI: this build reaches it on Linux only")
}

// NewNCCL fails: NCCL is supported only on Linux.
func NewNCCL(Topology, *Line) (graph.StreamComm, error) {
	return nil, errors.New("NCCL: this build reaches it on Linux only")
}

// Libraries is empty: they are supported only on Linux.
func Libraries() []Library { return nil }
