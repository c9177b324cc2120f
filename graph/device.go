package graph

import "time"

// Device owns memory and runs plans on it: graph/cpu and graph/cuda.
type Device interface {
	// Name says what the device is, for people: "cpu (2 threads, avx512)".
	Name() string
	// FreeMemory is how many bytes the device could still give, 0 where that is unknown.
	FreeMemory() (int64, error)
	// Join makes the device's programs part of a run of several processes. It comes
	// before Load.
	Join(c Comm) error
	// Leave ends what Join began, in all processes together: the programs are closed, and
	// so is c.
	Leave() error
	// NewMemory allocates the regions that outlive a run, Params and those with its
	// layout, zeroed, and an arena that programs share. Sizes of Inputs and States are
	// ignored.
	NewMemory(sizes [Regions]int) (Memory, error)
	// Load binds a plan to the memory, to its arena where that is large enough, and
	// otherwise to one of its own, and to inputs and states of its own. A result in a
	// shared arena is good until another program runs.
	Load(p *Plan, m Memory) (Program, error)
	// LoadBeside is Load for a program that continues the texts of another one: it has
	// the other's states, which must be the same in both plans, and its arena where that
	// is large enough. The other must not be closed before it.
	LoadBeside(p *Plan, m Memory, other Program) (Program, error)
	// Close frees the device's workers. Its programs can't run afterwards.
	Close() error
}

// MemoryError is the error of a device that has not as much memory as is wanted. What it had
// given before is as it was.
type MemoryError struct{ Text string }

func (e *MemoryError) Error() string { return e.Text }

// Memory is the persistent regions, shared by the programs that train, evaluate
// and update one model.
type Memory interface {
	// Read copies region elements [offset, offset+len(dst)) to the host.
	Read(r Region, offset int, dst []float32) error
	// Write copies src from the host to region elements from offset on.
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
	// Run does all steps once.
	Run() error
	// RunTimed is Run that also adds each step's time to times[step].
	RunTimed(times []time.Duration) error
	// Read copies a result to dst, row after row.
	Read(name string, dst []float32) error
	// Result is a result, row after row, which is good until a program of the same memory
	// runs, and is not to be written. It saves Read's copy.
	Result(name string) ([]float32, error)
	// ResetStates zeroes all states: a new text begins.
	ResetStates() error
	// TakeState copies the state of the text in a row of another program of this device
	// to a row of this one: the text goes on here. Where a state holds more here (a
	// cache with more room), what the other has not is left as it was; where it holds less,
	// the text must fit.
	TakeState(row int, from Program, fromRow int) error
	// Plan is what was loaded.
	Plan() *Plan
	// Close frees what the program alone has. It can't run afterwards.
	Close() error
}

// Tracer is a Program that can tell its workers apart.
type Tracer interface {
	// RunTraced is Run that also returns when each worker was busy: worker after
	// worker, each in order of time.
	RunTraced() ([]Span, error)
}

// Span is a stretch of time that one worker spent on one step of a plan, counted
// from the beginning of the run.
type Span struct {
	Step, Worker int
	Start, End   time.Duration
}
