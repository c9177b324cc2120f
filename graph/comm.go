package graph

import "unsafe"

// Vector is elements behind each other in a device's memory: at an address of the
// host's for a CPU, of the GPU's for a GPU.
type Vector struct {
	Address  unsafe.Pointer
	Elements int
	DType    DType
}

// VectorOf is a host slice. It must stay reachable until the call that takes it is done.
func VectorOf(x []float32) Vector {
	return Vector{Address: unsafe.Pointer(unsafe.SliceData(x)), Elements: len(x)}
}

// Part is the elements [from, from+n).
func (v Vector) Part(from, n int) Vector {
	return Vector{unsafe.Add(v.Address, v.DType.Size()*from), n, v.DType}
}

// Comm moves numbers between the processes that run the same plans; internal/dist makes
// them. All processes make the same calls in the same order, one at a time. The same
// inputs give the same bits for the same processes on the same machines. A Comm that
// has failed is of no further use.
type Comm interface {
	Rank() int
	Size() int
	// AllReduce makes to the sum of all processes' from, which it may be itself.
	AllReduce(from, to Vector) error
	// ReduceScatter sums all processes' from, of Size() equal pieces, and leaves the sum
	// of piece Rank() in to, which may be that piece of from. The others are spoilt then.
	ReduceScatter(from, to Vector) error
	// AllGather makes to, of Size() equal pieces, of every process's from, which may be
	// piece Rank() of to.
	AllGather(from, to Vector) error
	// Broadcast copies root's x to all.
	Broadcast(x Vector, root int) error
	// Close ends the use of the library.
	Close() error
}

// StreamComm is a Comm for GPUs: its calls are put on a stream, and return before they
// are done.
type StreamComm interface {
	Comm
	// OnStream chooses the stream of the calls that follow.
	OnStream(stream uintptr)
}
