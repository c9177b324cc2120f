//go:build !linux

package dist

import "errors"

// NewMPI fails: Open MPI is reached on Linux only.
func NewMPI() (Communicator, error) {
	return nil, errors.New("Open MPI: this build reaches it on Linux only")
}
