//go:build linux

package cuda

import (
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
)

// Program is a plan whose launches are captured in a CUDA graph.
type Program struct {
	d         *Device
	plan      *graph.Plan
	regions   [graph.Regions]uint64
	sizes     [graph.Regions]int
	borrowed  [graph.Regions]bool // memory of another's, which the program doesn't free
	workspace uint64
	inputs    unsafe.Pointer // pinned host copy of region Inputs, which Go's collector doesn't know
	steps     [][]command
	waits     []*collective // see schedule
	exec      uintptr
	events    []uintptr
}

// command is one thing on the stream.
type command interface {
	enqueue(stream uintptr) error
}

// Load implements graph.Device.
func (d *Device) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	return d.load(p, m, nil)
}

// LoadBeside implements graph.Device.
func (d *Device) LoadBeside(p *graph.Plan, m graph.Memory, other graph.Program) (graph.Program, error) {
	own, ok := other.(*Program)
	if !ok || own.d != d {
		return nil, fmt.Errorf("cuda: the other program belongs to another device (%T)", other)
	}
	if err := p.SameStates(own.plan); err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	return d.load(p, m, own)
}

func (d *Device) load(p *graph.Plan, m graph.Memory, other *Program) (graph.Program, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	prog := &Program{d: d, plan: p}
	d.programs = append(d.programs, prog)
	if m != nil {
		own, ok := m.(*Memory)
		if !ok || own.d != d {
			return nil, fmt.Errorf("cuda: the memory belongs to another device (%T)", m)
		}
		prog.regions, prog.sizes = own.regions, own.sizes
	}
	for r := graph.Params; r < graph.Regions; r++ {
		if prog.sizes[r] < p.Sizes[r] {
			return nil, fmt.Errorf("cuda: region %v has %d elements, the plan wants %d", r, prog.sizes[r], p.Sizes[r])
		}
	}
	if other != nil {
		for _, r := range []graph.Region{graph.Arena, graph.States} {
			prog.regions[r], prog.sizes[r] = other.regions[r], other.sizes[r]
		}
	}
	for _, r := range []graph.Region{graph.Arena, graph.Inputs, graph.States} {
		if r != graph.Inputs && prog.regions[r] != 0 && p.Sizes[r] <= prog.sizes[r] {
			prog.borrowed[r] = true
			continue
		}
		prog.sizes[r] = p.Sizes[r]
		if prog.regions[r], err = d.alloc(4 * p.Sizes[r]); err != nil {
			return nil, fmt.Errorf("%v: %w", r, err)
		}
	}
	if n := 4 * p.Sizes[graph.Inputs]; n > 0 {
		if err := d.driver.call("cuMemHostAlloc", d.driver.memHostAlloc, uintptr(unsafe.Pointer(&prog.inputs)), uintptr(n), 0); err != nil {
			return nil, err
		}
	}
	size := 0
	for _, s := range p.Steps {
		if s.Spec.CUDA == nil {
			return nil, fmt.Errorf("cuda: %s has no CUDA kernel", s.Spec.Name)
		}
		if s.Spec.CUDA.Workspace != nil {
			size = max(size, s.Spec.CUDA.Workspace(s.Dims))
		}
	}
	if prog.workspace, err = d.alloc(size); err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	for _, s := range p.Steps {
		commands, err := prog.bind(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Spec.Name, err)
		}
		prog.steps = append(prog.steps, commands)
	}
	prog.waits = schedule(p, prog.steps)
	return prog, prog.capture()
}

func (p *Program) buffer(s graph.Slot) graph.DeviceBuffer {
	return graph.DeviceBuffer{
		Address: p.regions[s.Region] + uint64(4*s.Offset) + uint64(s.Col*s.DType.Size()),
		DType:   s.DType, Rows: s.Rows, Cols: s.Cols, Stride: s.Stride,
	}
}

// call is a step with its buffers.
func (p *Program) call(s graph.Step) *graph.CUDACall {
	c := &graph.CUDACall{Dims: s.Dims, Workspace: p.workspace, Multiprocessors: p.d.sms, Capability: p.d.capability}
	for _, in := range s.In {
		c.In = append(c.In, p.buffer(in))
	}
	for _, out := range s.Out {
		c.Out = append(c.Out, p.buffer(out))
	}
	return c
}

func (p *Program) bind(s graph.Step) ([]command, error) {
	launches, err := s.Spec.CUDA.Launches(p.call(s))
	if err != nil {
		return nil, err
	}
	var list []command
	for _, l := range launches {
		if l.Collective != nil {
			c, err := p.d.newCollective(*l.Collective)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
			continue
		}
		if l.Product != nil {
			for _, part := range split(*l.Product) {
				m, err := p.d.newProduct(&part, p.d.scratch)
				if err != nil {
					return nil, err
				}
				list = append(list, m)
			}
			continue
		}
		f, err := p.d.function(s.Spec.Name, s.Spec.CUDA.Source, l)
		if err != nil {
			return nil, err
		}
		k, err := newKernel(p.d.driver, f, l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Kernel, err)
		}
		list = append(list, k)
	}
	return list, nil
}

// kernel is a launch with its parameters in the form that the driver takes.
type kernel struct {
	driver      *driver
	name        string
	function    uintptr
	grid, block [3]int
	shared      int
	values      []uint64
	table       []*uint64
}

func newKernel(d *driver, f uintptr, l graph.Launch) (*kernel, error) {
	k := &kernel{driver: d, name: l.Kernel, function: f, grid: l.Grid, block: l.Block, shared: l.Shared}
	for _, dim := range []*[3]int{&k.grid, &k.block} {
		for i := range dim {
			if dim[i] == 0 {
				dim[i] = 1
			}
			if dim[i] < 0 {
				return nil, fmt.Errorf("grid %v, block %v", k.grid, k.block)
			}
		}
	}
	k.values = make([]uint64, len(l.Args))
	for i, a := range l.Args {
		switch a := a.(type) {
		case uint64:
			k.values[i] = a
		case int32:
			k.values[i] = uint64(uint32(a))
		case float32:
			*(*float32)(unsafe.Pointer(&k.values[i])) = a
		default:
			return nil, fmt.Errorf("argument %d is a %T, want uint64, int32 or float32", i, a)
		}
		k.table = append(k.table, &k.values[i])
	}
	return k, nil
}

func (k *kernel) enqueue(stream uintptr) error {
	var table uintptr
	if len(k.table) > 0 {
		table = uintptr(unsafe.Pointer(&k.table[0]))
	}
	err := k.driver.call("cuLaunchKernel", k.driver.launchKernel, k.function,
		uintptr(k.grid[0]), uintptr(k.grid[1]), uintptr(k.grid[2]), uintptr(k.block[0]), uintptr(k.block[1]), uintptr(k.block[2]),
		uintptr(k.shared), stream, table, 0)
	if err != nil {
		return fmt.Errorf("%w: %s, grid %v, block %v, %d bytes shared", err, k.name, k.grid, k.block, k.shared)
	}
	return nil
}

// capture records everything that a run does in a graph, which the driver
// launches as a whole.
func (p *Program) capture() error {
	drv, stream := p.d.driver, p.d.stream
	const relaxed = 2
	if err := drv.call("cuStreamBeginCapture", drv.beginCapture, stream, relaxed); err != nil {
		return err
	}
	err := p.enqueueInputs()
	for i := range p.steps {
		if err == nil {
			err = p.runStep(i)
		}
	}
	if err == nil {
		err = p.awaitAll()
	}
	var graph uintptr
	if end := drv.call("cuStreamEndCapture", drv.endCapture, stream, uintptr(unsafe.Pointer(&graph))); err == nil {
		err = end
	}
	if err != nil {
		return err
	}
	defer purego.SyscallN(drv.graphDestroy, graph)
	return drv.call("cuGraphInstantiate", drv.graphInstantiate, uintptr(unsafe.Pointer(&p.exec)), graph, 0)
}

func (p *Program) enqueueInputs() error {
	n := 4 * p.plan.Sizes[graph.Inputs]
	if n == 0 {
		return nil
	}
	return p.d.driver.call("cuMemcpyHtoDAsync", p.d.driver.copyHtoDAsync, uintptr(p.regions[graph.Inputs]), uintptr(p.inputs), uintptr(n), p.d.stream)
}

// Plan implements graph.Program.
func (p *Program) Plan() *graph.Plan { return p.plan }

// Run implements graph.Program: it hands the whole graph to the GPU and returns
// before the GPU is done. Read waits.
func (p *Program) Run() error {
	if p.exec == 0 {
		return errClosed
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return p.d.driver.call("cuGraphLaunch", p.d.driver.graphLaunch, p.exec, p.d.stream)
}

// RunTimed implements graph.Program, step by step with an event between.
func (p *Program) RunTimed(times []time.Duration) error {
	if len(times) != len(p.steps) {
		return fmt.Errorf("cuda: %d times for %d steps", len(times), len(p.steps))
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	drv := p.d.driver
	for len(p.events) <= len(p.steps) {
		var e uintptr
		if err := drv.call("cuEventCreate", drv.eventCreate, uintptr(unsafe.Pointer(&e)), 0); err != nil {
			return err
		}
		p.events = append(p.events, e)
	}
	if err := p.enqueueInputs(); err != nil {
		return err
	}
	for i := range p.steps {
		if err := drv.call("cuEventRecord", drv.eventRecord, p.events[i], p.d.stream); err != nil {
			return err
		}
		if err := p.runStep(i); err != nil {
			return err
		}
	}
	if err := p.awaitAll(); err != nil {
		return err
	}
	if err := drv.call("cuEventRecord", drv.eventRecord, p.events[len(p.steps)], p.d.stream); err != nil {
		return err
	}
	if err := p.d.synchronize(); err != nil {
		return err
	}
	for i := range p.steps {
		var ms float32
		if err := drv.call("cuEventElapsedTime", drv.eventElapsed, uintptr(unsafe.Pointer(&ms)), p.events[i], p.events[i+1]); err != nil {
			return err
		}
		times[i] += time.Duration(float64(ms) * 1e6)
	}
	return nil
}

// ResetStates implements graph.Program.
func (p *Program) ResetStates() error {
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.d.synchronize(); err != nil || p.regions[graph.States] == 0 {
		return err
	}
	return p.d.driver.call("cuMemsetD8", p.d.driver.memset, uintptr(p.regions[graph.States]), 0, uintptr(4*p.plan.Sizes[graph.States]))
}

// TakeState implements graph.Program. It is ordered with the programs' runs.
func (p *Program) TakeState(row int, from graph.Program, fromRow int) error {
	own, ok := from.(*Program)
	if !ok || own.d != p.d {
		return fmt.Errorf("cuda: the other program belongs to another device (%T)", from)
	}
	list, err := p.plan.TakeState(row, own.plan, fromRow)
	if err != nil {
		return fmt.Errorf("cuda: %w", err)
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, c := range list {
		err := p.d.driver.call("cuMemcpyDtoDAsync", p.d.driver.copyDtoDAsync,
			uintptr(p.regions[graph.States])+uintptr(c.To), uintptr(own.regions[graph.States])+uintptr(c.From), uintptr(c.Bytes), p.d.stream)
		if err != nil {
			return err
		}
	}
	return nil
}

// Close implements graph.Program.
func (p *Program) Close() error {
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.d.synchronize(); err != nil {
		return err
	}
	p.release()
	return nil
}

// staging is the pinned memory of an input. The GPU must not be reading it.
func (p *Program) staging(name string, t graph.DType, n int) (unsafe.Pointer, error) {
	s, ok := p.plan.Inputs[name]
	if !ok {
		return nil, fmt.Errorf("cuda: the plan has no input %s", name)
	}
	if s.DType != t || s.Rows*s.Cols != n {
		return nil, fmt.Errorf("cuda: input %s is %v %v, not %d elements of %v", name, s.DType, s.Shape, n, t)
	}
	leave, err := p.d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return unsafe.Add(p.inputs, 4*s.Offset), p.d.synchronize()
}

// WriteInts implements graph.Program.
func (p *Program) WriteInts(name string, src []int32) error {
	to, err := p.staging(name, graph.Int32, len(src))
	if err == nil {
		copy(unsafe.Slice((*int32)(to), len(src)), src)
	}
	return err
}

// WriteFloats implements graph.Program.
func (p *Program) WriteFloats(name string, src []float32) error {
	to, err := p.staging(name, graph.Float32, len(src))
	if err == nil {
		copy(unsafe.Slice((*float32)(to), len(src)), src)
	}
	return err
}

// Read implements graph.Program. bfloat16 results are widened.
func (p *Program) Read(name string, dst []float32) error {
	s, ok := p.plan.Results[name]
	if !ok {
		return fmt.Errorf("cuda: the plan has no result %s", name)
	}
	return p.ReadSlot(s, dst)
}

// ReadSlot copies any tensor of the plan to dst, row after row, as float32.
func (p *Program) ReadSlot(s graph.Slot, dst []float32) error {
	if s.Rows*s.Cols != len(dst) || s.DType == graph.Int32 {
		return fmt.Errorf("cuda: a tensor of %v %v does not fill %d float32s", s.DType, s.Shape, len(dst))
	}
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.d.synchronize(); err != nil {
		return err
	}
	b := p.buffer(s)
	size := s.DType.Size()
	raw := make([]byte, ((b.Rows-1)*b.Stride+b.Cols)*size)
	if err := p.d.driver.call("cuMemcpyDtoH", p.d.driver.copyDtoH, uintptr(unsafe.Pointer(&raw[0])), uintptr(b.Address), uintptr(len(raw))); err != nil {
		return err
	}
	for i := range b.Rows {
		for j := range b.Cols {
			at := (i*b.Stride + j) * size
			if s.DType == graph.BFloat16 {
				*(*uint32)(unsafe.Pointer(&dst[i*b.Cols+j])) = uint32(raw[at])<<16 | uint32(raw[at+1])<<24
			} else {
				dst[i*b.Cols+j] = *(*float32)(unsafe.Pointer(&raw[at]))
			}
		}
	}
	return nil
}

// release frees what the program owns. The program can't run afterwards.
func (p *Program) release() {
	i := slices.Index(p.d.programs, p)
	if i < 0 {
		return // released before
	}
	p.d.programs = slices.Delete(p.d.programs, i, i+1)
	drv := p.d.driver
	if p.exec != 0 {
		purego.SyscallN(drv.graphExecDestroy, p.exec)
		p.exec = 0
	}
	for _, e := range p.events {
		purego.SyscallN(drv.eventDestroy, e)
	}
	for _, step := range p.steps {
		for _, c := range step {
			switch c := c.(type) {
			case *product:
				c.free()
			case *collective:
				if c.done != 0 {
					purego.SyscallN(drv.eventDestroy, c.done)
				}
			}
		}
	}
	for _, r := range []graph.Region{graph.Arena, graph.Inputs, graph.States} {
		if !p.borrowed[r] {
			p.d.free(p.regions[r])
		}
	}
	p.d.free(p.workspace)
	if p.inputs != nil {
		purego.SyscallN(drv.memFreeHost, uintptr(p.inputs))
	}
}
