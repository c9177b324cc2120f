package graph

import "unsafe"

// Vector is contiguous elements in a device's memory: Address is a host address for a CPU, a device
// address for a GPU.
type Vector struct {
	Address  unsafe.Pointer
	Elements int
	DType    DType
}

// VectorOf is a host slice, which must stay reachable until the call that uses it returns.
func VectorOf(x []float32) Vector {
	return Vector{Address: unsafe.Pointer(unsafe.SliceData(x)), Elements: len(x)}
}

// Part is the elements [from, from+n).
func (v Vector) Part(from, n int) Vector {
	return Vector{unsafe.Add(v.Address, v.DType.Size()*from), n, v.DType}
}

// Comm moves numbers between the processes that run the same plans; internal/dist implements it.
// All processes make the same calls in the same order, one at a time. The same inputs give the same
// bits for the same processes on the same machines. After an error a Comm can't be used any more.
type Comm interface {
	Rank() int
	Size() int
	// AllReduce sets to to the sum of all processes' from. Both may be the same vector.
	AllReduce(from, to Vector) error
	// ReduceScatter sums all processes' from, which consists of Size() equal pieces, and stores the
	// sum of piece Rank() in to, which may be that piece of from. The other pieces are then
	// undefined.
	ReduceScatter(from, to Vector) error
	// AllGather fills to, which consists of Size() equal pieces, with the from of every process;
	// from may be piece Rank() of to.
	AllGather(from, to Vector) error
	// Broadcast copies root's x to all processes.
	Broadcast(x Vector, root int) error
	// Close shuts down the communication library.
	Close() error
}

// StreamComm is a Comm for GPUs: its calls are enqueued on a stream and return before they are
// done.
type StreamComm interface {
	Comm
	// OnStream selects the stream of the calls that follow.
	OnStream(stream uintptr)
}
