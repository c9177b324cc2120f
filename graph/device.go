package graph

import "time"

// Device owns memory and runs plans on it: graph/cpu and graph/cuda.
type Device interface {
	// Name describes the device for people: "cpu (2 threads, avx512)".
	Name() string
	// Asynchronous reports whether Run returns before the program's work is done, so that the host can
	// start the next run meanwhile.
	Asynchronous() bool
	// FreeMemory is the number of bytes that the device can still allocate, 0 if unknown.
	FreeMemory() (int64, error)
	// Join makes the device's programs part of a run of several processes. It must be called before
	// Load.
	Join(c Comm) error
	// Leave undoes Join, in all processes together: it closes c and the programs that were
	// loaded since. It does nothing on a device that has not joined.
	Leave() error
	// NewMemory allocates the regions that outlive a run, zeroed (Params and those with its
	// layout), and an arena that programs share. Sizes of Inputs and States are ignored.
	NewMemory(sizes [Regions]int) (Memory, error)
	// Load binds a plan to the memory. It uses the memory's arena if that is large enough and
	// otherwise one of its own; inputs and states are always its own. A result in a shared arena is
	// valid until another program runs.
	Load(p *Plan, m Memory) (Program, error)
	// LoadBeside is Load for a program that continues the texts of another one: it shares the
	// other's states, which must be the same in both plans, and its arena if that is large enough.
	// The other program must not be closed first.
	LoadBeside(p *Plan, m Memory, other Program) (Program, error)
	// Close frees the device's workers. Its programs can't run afterwards.
	Close() error
}

// MemoryError is the error of a device that does not have enough memory. Earlier allocations are
// unaffected.
type MemoryError struct{ Text string }

func (e *MemoryError) Error() string { return e.Text }

// Memory is the persistent regions, shared by the programs that train, evaluate and update one
// model.
type Memory interface {
	// Read copies region elements [offset, offset+len(dst)) to the host.
	Read(r Region, offset int, dst []float32) error
	// Write copies src from the host to the elements of a region starting at offset.
	Write(r Region, offset int, src []float32) error
	// Clear fills a region with zeros.
	Clear(r Region) error
}

// Program is a plan that is ready to run.
type Program interface {
	// WriteInts fills an int32 input; the lengths must agree.
	WriteInts(name string, src []int32) error
	// WriteFloats fills a float32 input.
	WriteFloats(name string, src []float32) error
	// Run executes all steps once.
	Run() error
	// RunTimed is Run that also adds each step's time to times[step].
	RunTimed(times []time.Duration) error
	// Read copies a result to dst, row by row.
	Read(name string, dst []float32) error
	// Result is a result in row-major order. It is valid until a program of the same memory runs,
	// and must not be written. It avoids the copy of Read.
	Result(name string) ([]float32, error)
	// Ints returns an int32 result of the last run, or of the run before it if back is 1. It waits only for
	// that run. The result is valid until two more runs have started.
	Ints(name string, back int) ([]int32, error)
	// ResetStates zeroes all states to start new texts.
	ResetStates() error
	// TakeState copies the state of a text from a row of another program of this device to a row of
	// this one, which then continues the text. If a state is larger here (a cache with more
	// capacity), the rest of it is left unchanged; if it is smaller, the text must fit.
	TakeState(row int, from Program, fromRow int) error
	// Plan is the plan that was loaded.
	Plan() *Plan
	// Close frees what only this program uses. It can't run afterwards.
	Close() error
}

// Tracer is a Program that can report on each worker.
type Tracer interface {
	// RunTraced is Run that also returns when each worker was busy, by worker and then by time.
	RunTraced() ([]Span, error)
}

// Span is a period of time that one worker spent on one step of a plan, measured from the start of
// the run.
type Span struct {
	Step, Worker int
	Start, End   time.Duration
}
