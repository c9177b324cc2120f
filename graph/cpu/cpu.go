// Package cpu runs plans on the CPU: one arena, a fixed pool of workers, and a list of bound
// kernels. It knows no op; kernels come from the Specs.
package cpu

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/pool"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// Device is a CPU with a number of worker threads. It runs one program at a time.
type Device struct {
	pool         *workers
	roundFactors bool
	comm         graph.Comm
	left         *bool // set when the run of several processes that the device is part of ends
}

// New starts a device. threads <= 0 means one per core. The results of a run don't
// depend on threads.
func New(threads int) (*Device, error) {
	if err := simd.LevelError(); err != nil {
		return nil, err
	}
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Device{pool: &workers{Pool: pool.New(threads)}}, nil
}

// RoundFactors makes products with a weight round both inputs to bfloat16, in programs loaded from
// now on. Everything else stays float32.
func (d *Device) RoundFactors() { d.roundFactors = true }

// Name implements graph.Device.
func (d *Device) Name() string {
	precision := ""
	switch {
	case d.roundFactors && simd.BF16():
		precision = ", bfloat16 products"
	case d.roundFactors:
		precision = ", bfloat16 products at float32's speed"
	}
	return fmt.Sprintf("cpu (%d threads, %v%s)", d.pool.Workers(), simd.Active(), precision)
}

// Threads is the number of workers.
func (d *Device) Threads() int { return d.pool.Workers() }

// Close stops the workers.
func (d *Device) Close() error {
	d.pool.Close()
	return nil
}

// Join implements graph.Device.
func (d *Device) Join(c graph.Comm) error {
	d.comm, d.left = c, new(bool)
	return nil
}

// Leave implements graph.Device.
func (d *Device) Leave() error {
	if d.comm == nil {
		return nil
	}
	c := d.comm
	*d.left = true
	d.comm, d.left = nil, nil
	return c.Close()
}

// Asynchronous implements graph.Device.
func (d *Device) Asynchronous() bool { return false }

// FreeMemory implements graph.Device.
func (d *Device) FreeMemory() (int64, error) { return availableMemory() }

// Program is a plan with its kernels bound to memory.
type Program struct {
	plan      *graph.Plan
	pool      *workers
	regions   [graph.Regions][]float32
	workspace []float32
	kernels   []func()
	ints      map[string]*[2][]int32 // int32 results of the last two runs
	runs      int
	failure   error // of a kernel in the current run
	closed    bool
	left      *bool // the device's when it was loaded; nil if it had not joined a run
}

// Load implements graph.Device.
func (d *Device) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	return d.load(p, m, nil)
}

// LoadBeside implements graph.Device.
func (d *Device) LoadBeside(p *graph.Plan, m graph.Memory, other graph.Program) (graph.Program, error) {
	own, ok := other.(*Program)
	if !ok || own.pool != d.pool {
		return nil, fmt.Errorf("cpu: the other program belongs to another device (%T)", other)
	}
	if err := p.SameStates(own.plan); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return d.load(p, m, own)
}

func (d *Device) load(p *graph.Plan, m graph.Memory, other *Program) (graph.Program, error) {
	prog := &Program{plan: p, pool: d.pool, left: d.left}
	if err := prog.takeMemory(m, other); err != nil {
		return nil, err
	}
	size := 0
	for _, s := range p.Steps {
		for _, slot := range s.Out {
			if slot.DType == graph.BFloat16 {
				return nil, fmt.Errorf("cpu: %s computes in bfloat16; the CPU computes in float32", s.Spec.Name)
			}
		}
		if s.Spec.CPU == nil {
			return nil, fmt.Errorf("cpu: %s has no CPU kernel", s.Spec.Name)
		}
		if s.Spec.Workspace != nil {
			size = max(size, s.Spec.Workspace(s.Dims, d.pool.Workers()))
		}
	}
	prog.workspace = aligned(size)
	for _, s := range p.Steps {
		c := &graph.CPUCall{Dims: s.Dims, Pool: d.pool, Comm: d.comm, Fail: prog.fail, RoundFactors: d.roundFactors && !s.Precise}
		for _, in := range s.In {
			c.In = append(c.In, prog.buffer(in))
		}
		for _, out := range s.Out {
			c.Out = append(c.Out, prog.buffer(out))
		}
		if s.Spec.Workspace != nil {
			n := s.Spec.Workspace(s.Dims, d.pool.Workers())
			c.Workspace = prog.workspace[:n:n]
		}
		prog.kernels = append(prog.kernels, s.Spec.CPU(c))
	}
	prog.ints = map[string]*[2][]int32{}
	for name, s := range p.Results {
		if n := s.Rows * s.Cols; s.DType == graph.Int32 {
			prog.ints[name] = &[2][]int32{make([]int32, n), make([]int32, n)}
		}
	}
	return prog, nil
}

// takeMemory sets the program's regions: those of m and of other, and its own where these are
// missing or too small.
func (p *Program) takeMemory(m graph.Memory, other *Program) error {
	if m != nil {
		own, ok := m.(*Memory)
		if !ok {
			return fmt.Errorf("cpu: the memory belongs to another device (%T)", m)
		}
		p.regions = own.regions
	}
	want := &p.plan.Sizes
	for r := graph.Params; r < graph.Regions; r++ {
		if len(p.regions[r]) < want[r] {
			return fmt.Errorf("cpu: region %v has %d elements, the plan wants %d", r, len(p.regions[r]), want[r])
		}
	}
	if other != nil {
		p.regions[graph.Arena], p.regions[graph.States] = other.regions[graph.Arena], other.regions[graph.States]
	}
	for _, r := range []graph.Region{graph.Arena, graph.Inputs, graph.States} {
		if r != graph.Inputs && p.regions[r] != nil && len(p.regions[r]) >= want[r] {
			continue
		}
		if want[r] < 0 || want[r] > maxElements {
			return fmt.Errorf("cpu: region %v can't have %d elements", r, want[r])
		}
		if err := p.room(r, 4*int64(want[r])); err != nil {
			return err
		}
		p.regions[r] = aligned(want[r])
	}
	return nil
}

// room returns an error if a region would take more memory than is free; otherwise Go's runtime
// would crash.
func (p *Program) room(r graph.Region, bytes int64) error {
	if bytes < hugePage {
		return nil // too small to check
	}
	free, err := availableMemory()
	if err == nil && free > 0 && bytes > free {
		debug.FreeOSMemory() // the garbage collector may still hold the memory of closed programs
		free, err = availableMemory()
	}
	if err == nil && free > 0 && bytes > free {
		err = &graph.MemoryError{Text: fmt.Sprintf("cpu: region %v takes %.1f GB of memory, of %.1f GB that are free", r, float64(bytes)/1e9, float64(free)/1e9)}
	}
	return err
}

func (p *Program) buffer(s graph.Slot) graph.Buffer {
	b := graph.Buffer{Rows: s.Rows, Cols: s.Cols, Stride: s.Stride}
	n := (s.Rows-1)*s.Stride + s.Cols
	from := s.Offset + s.Col
	f := p.regions[s.Region][from : from+n : from+n]
	if s.DType == graph.Int32 {
		b.I32 = unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f))), n)
	} else {
		b.F32 = f
	}
	return b
}

// Plan implements graph.Program.
func (p *Program) Plan() *graph.Plan { return p.plan }

var (
	errClosed        = errors.New("cpu: the device is closed")
	errProgramClosed = errors.New("cpu: the program is closed")
)

// isClosed reports whether Close or the device's Leave has closed the program.
func (p *Program) isClosed() bool { return p.closed || p.left != nil && *p.left }

// ready returns an error if the program can't run any more.
func (p *Program) ready() error {
	switch {
	case p.pool.Closed():
		return errClosed
	case p.isClosed():
		return errProgramClosed
	}
	return nil
}

// Run implements graph.Program. It allocates nothing.
func (p *Program) Run() error {
	if err := p.ready(); err != nil {
		return err
	}
	for _, k := range p.kernels {
		k()
	}
	return p.ended()
}

// fail keeps the first failure of a run. The run continues to its end: the other processes are
// gone, and its results are not used.
func (p *Program) fail(err error) {
	if p.failure == nil {
		p.failure = err
	}
}

// ended keeps a run's int32 results and returns its failure.
func (p *Program) ended() error {
	for name, kept := range p.ints {
		copy(kept[p.runs%2], p.buffer(p.plan.Results[name]).I32)
	}
	p.runs++
	err := p.failure
	p.failure = nil
	return err
}

// RunTimed implements graph.Program.
func (p *Program) RunTimed(times []time.Duration) error {
	if len(times) != len(p.kernels) {
		return fmt.Errorf("cpu: %d times for %d steps", len(times), len(p.kernels))
	}
	if err := p.ready(); err != nil {
		return err
	}
	last := time.Now()
	for i, k := range p.kernels {
		k()
		now := time.Now()
		times[i] += now.Sub(last)
		last = now
	}
	return p.ended()
}

// ResetStates implements graph.Program.
func (p *Program) ResetStates() error {
	clear(p.regions[graph.States])
	return nil
}

// TakeState implements graph.Program.
func (p *Program) TakeState(row int, from graph.Program, fromRow int) error {
	own, ok := from.(*Program)
	if !ok || own.pool != p.pool {
		return fmt.Errorf("cpu: the other program belongs to another device (%T)", from)
	}
	list, err := p.plan.TakeState(row, own.plan, fromRow)
	if err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	// All states are float32 on the CPU.
	for _, c := range list {
		copy(p.regions[graph.States][c.To/4:(c.To+c.Bytes)/4], own.regions[graph.States][c.From/4:])
	}
	return nil
}

// Close implements graph.Program.
func (p *Program) Close() error {
	*p = Program{plan: p.plan, pool: p.pool, closed: true}
	return nil
}

// WriteInts implements graph.Program.
func (p *Program) WriteInts(name string, src []int32) error {
	b, err := p.named("input", p.plan.Inputs, name, graph.Int32, len(src))
	copy(b.I32, src)
	return err
}

// WriteFloats implements graph.Program.
func (p *Program) WriteFloats(name string, src []float32) error {
	b, err := p.named("input", p.plan.Inputs, name, graph.Float32, len(src))
	copy(b.F32, src)
	return err
}

// Read implements graph.Program.
func (p *Program) Read(name string, dst []float32) error {
	b, err := p.named("result", p.plan.Results, name, graph.Float32, len(dst))
	if err != nil {
		return err
	}
	for i := range b.Rows {
		copy(dst[i*b.Cols:], b.Row(i))
	}
	return nil
}

// Result implements graph.Program.
func (p *Program) Result(name string) ([]float32, error) {
	s := p.plan.Results[name]
	n := s.Rows * s.Cols
	b, err := p.named("result", p.plan.Results, name, graph.Float32, n)
	switch {
	case err != nil:
		return nil, err
	case b.Stride == b.Cols:
		return b.F32[:n], nil
	}
	dst := make([]float32, n)
	return dst, p.Read(name, dst)
}

// Ints implements graph.Program.
func (p *Program) Ints(name string, back int) ([]int32, error) {
	switch kept := p.ints[name]; {
	case p.isClosed():
		return nil, errProgramClosed
	case kept == nil:
		return nil, fmt.Errorf("cpu: the plan has no int32 result %s", name)
	case back < 0 || back > 1 || back >= p.runs:
		return nil, fmt.Errorf("cpu: result %s of %d runs before the last of %d", name, back, p.runs)
	default:
		return kept[(p.runs-1-back)%2], nil
	}
}

func (p *Program) named(kind string, in map[string]graph.Slot, name string, t graph.DType, n int) (graph.Buffer, error) {
	if p.isClosed() {
		return graph.Buffer{}, errProgramClosed
	}
	s, ok := in[name]
	if !ok {
		return graph.Buffer{}, fmt.Errorf("cpu: the plan has no %s %s", kind, name)
	}
	if s.DType != t || s.Rows*s.Cols != n {
		return graph.Buffer{}, fmt.Errorf("cpu: %s %s is %v %v, not %d elements of %v", kind, name, s.DType, s.Shape, n, t)
	}
	return p.buffer(s), nil
}
