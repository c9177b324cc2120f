package graph

import "unsafe"

// Vector is float32 elements behind each other in a device's memory: at an address of the
// host's for a CPU, of the GPU's for a GPU.
type Vector struct {
	Address  unsafe.Pointer
	Elements int
}

// VectorOf is a host slice. It must stay reachable until the call that takes it is done.
func VectorOf(x []float32) Vector { return Vector{unsafe.Pointer(unsafe.SliceData(x)), len(x)} }

// Part is the elements [from, from+n).
func (v Vector) Part(from, n int) Vector { return Vector{unsafe.Add(v.Address, 4*from), n} }

// Comm moves numbers between the processes that run the same plans; internal/dist makes
// them. All processes make the same calls in the same order, one at a time. The same
// inputs give the same bits for the same processes on the same machines. A Comm that
// has failed is of no further use.
type Comm interface {
	Rank() int
	Size() int
	// AllReduce replaces x by the sum of all processes' x.
	AllReduce(x Vector) error
	// ReduceScatter sums all processes' x, of Size() equal pieces, and leaves the sum of
	// piece Rank() in x. The other pieces of x are spoilt.
	ReduceScatter(x Vector) error
	// AllGather makes x, of Size() equal pieces, whole from every process's piece Rank().
	AllGather(x Vector) error
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

// CollectiveKernel is the CPU kernel of an op that makes one of Comm's calls on x [N]: in
// place, or on y [N] where the op has an output. A run of one process makes none.
func CollectiveKernel(call func(c Comm, x Vector) error) func(c *CPUCall) func() {
	return func(c *CPUCall) func() {
		x := c.In[0].F32
		y := x
		if len(c.Out) > 0 {
			y = c.Out[0].F32
		}
		return func() {
			if &x[0] != &y[0] {
				copy(y, x)
			}
			if c.Comm == nil {
				return
			}
			if err := call(c.Comm, VectorOf(y)); err != nil {
				c.Fail(err)
			}
		}
	}
}
