package dist

import (
	"fmt"
	"unsafe"
)

// Buffer is elements of float32 in memory that the communicator's device reads: a CPU's
// address, or a GPU's.
type Buffer struct {
	Address  unsafe.Pointer
	Elements int
}

// Of is a host slice as a buffer. It must stay reachable until the call is done.
func Of(x []float32) Buffer { return Buffer{unsafe.Pointer(unsafe.SliceData(x)), len(x)} }

// part is the elements [from, from+n).
func (b Buffer) part(from, n int) Buffer {
	return Buffer{unsafe.Add(b.Address, 4*from), n}
}

// Communicator moves numbers between the processes of a run. All processes make the
// same calls in the same order, from one goroutine at a time. The same inputs give the
// same sums, to the bit, for the same processes on the same machines. A call that fails
// leaves the communicator of no use.
type Communicator interface {
	Rank() int
	Size() int
	// AllReduce replaces x by the sum of all processes' x.
	AllReduce(x Buffer) error
	// ReduceScatter sums all processes' x, of Size() equal pieces, and leaves the sum of
	// piece Rank() in x. The other pieces of x are spoilt.
	ReduceScatter(x Buffer) error
	// AllGather makes x, of Size() equal pieces, whole from every process's piece Rank().
	AllGather(x Buffer) error
	// Broadcast copies root's x to all.
	Broadcast(x Buffer, root int) error
	// Barrier returns when all processes have come to it.
	Barrier() error
	// Abort ends all processes of the run, with an exit code.
	Abort(code int)
	// Close ends the use of the library.
	Close() error
}

// Single is a run of one process.
type Single struct{}

// Rank implements Communicator.
func (Single) Rank() int { return 0 }

// Size implements Communicator.
func (Single) Size() int { return 1 }

// AllReduce implements Communicator.
func (Single) AllReduce(Buffer) error { return nil }

// ReduceScatter implements Communicator.
func (Single) ReduceScatter(Buffer) error { return nil }

// AllGather implements Communicator.
func (Single) AllGather(Buffer) error { return nil }

// Broadcast implements Communicator.
func (Single) Broadcast(_ Buffer, root int) error { return checkRoot(root, 1) }

// Barrier implements Communicator.
func (Single) Barrier() error { return nil }

// Abort implements Communicator.
func (Single) Abort(int) {}

// Close implements Communicator.
func (Single) Close() error { return nil }

func checkRoot(root, size int) error {
	if root < 0 || root >= size {
		return fmt.Errorf("dist: no process %d among %d", root, size)
	}
	return nil
}

// pieceOf is the length of one of size equal pieces.
func pieceOf(x Buffer, size int) (int, error) {
	if x.Elements%size != 0 {
		return 0, fmt.Errorf("dist: %d elements don't divide among %d processes", x.Elements, size)
	}
	return x.Elements / size, nil
}
