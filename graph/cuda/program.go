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
	inputs    unsafe.Pointer            // pinned host copy of region Inputs, which Go's collector doesn't know
	returned  unsafe.Pointer            // pinned host memory, where a run leaves results
	results   map[string]unsafe.Pointer // in it, float32; without those of programs of large results
	take      *kernel                   // of the inputs; nil where they are copied
	give      []*kernel                 // of the results
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
	if err := prog.takeMemory(m, other); err != nil {
		return nil, err
	}
	for _, s := range p.Steps {
		commands, err := prog.bind(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Spec.Name, err)
		}
		prog.steps = append(prog.steps, commands)
	}
	prog.awaitInputs()
	prog.waits = schedule(p, prog.steps)
	return prog, prog.capture()
}

// awaitInputs lets the first kernel begin when the inputs are there: so do all others.
func (p *Program) awaitInputs() {
	for _, commands := range p.steps {
		for _, c := range commands {
			if k, ok := c.(*kernel); ok {
				k.early = false
			}
			return
		}
	}
}

// takeMemory gives the program its regions: those of m and of other, which the program
// only borrows, and what they have no room for.
func (p *Program) takeMemory(m graph.Memory, other *Program) (err error) {
	if m != nil {
		own, ok := m.(*Memory)
		if !ok || own.d != p.d {
			return fmt.Errorf("cuda: the memory belongs to another device (%T)", m)
		}
		p.regions, p.sizes = own.regions, own.sizes
	}
	want := &p.plan.Sizes
	for r := graph.Params; r < graph.Regions; r++ {
		if p.sizes[r] < want[r] {
			return fmt.Errorf("cuda: region %v has %d elements, the plan wants %d", r, p.sizes[r], want[r])
		}
	}
	if other != nil {
		for _, r := range []graph.Region{graph.Arena, graph.States} {
			p.regions[r], p.sizes[r] = other.regions[r], other.sizes[r]
		}
	}
	for _, r := range []graph.Region{graph.Arena, graph.Inputs, graph.States} {
		if r != graph.Inputs && p.regions[r] != 0 && want[r] <= p.sizes[r] {
			p.borrowed[r] = true
			continue
		}
		p.sizes[r] = want[r]
		if p.regions[r], err = p.d.alloc(4 * want[r]); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
	}
	if err := p.placeInputs(); err != nil {
		return err
	}
	if err := p.placeResults(); err != nil {
		return err
	}
	size := 0
	for _, s := range p.plan.Steps {
		if s.Spec.CUDA == nil {
			return fmt.Errorf("cuda: %s has no CUDA kernel", s.Spec.Name)
		}
		if s.Spec.CUDA.Workspace != nil {
			size = max(size, s.Spec.CUDA.Workspace(s.Dims))
		}
	}
	if p.workspace, err = p.d.alloc(size); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	return nil
}

func (p *Program) buffer(s graph.Slot) graph.DeviceBuffer {
	return graph.DeviceBuffer{
		Address: p.regions[s.Region] + uint64(4*s.Offset) + uint64(s.Col*s.DType.Size()),
		DType:   s.DType, Rows: s.Rows, Cols: s.Cols, Stride: s.Stride, Pad: s.Pad,
		Fixed: s.Region == graph.Params || s.Region == graph.Shadow || s.Region == graph.Inputs,
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
			whole, zeros := widen(*l.Product)
			for _, l := range zeros {
				k, err := p.d.kernel("product", padSource, l)
				if err != nil {
					return nil, err
				}
				list = append(list, k)
			}
			for _, part := range split(whole) {
				m, err := p.d.newProduct(&part, p.d.scratch)
				if err != nil {
					return nil, err
				}
				list = append(list, m)
			}
			continue
		}
		k, err := p.d.kernel(s.Spec.Name, s.Spec.CUDA.Source, l)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
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
	if err == nil {
		err = p.enqueueResults()
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
	if err := p.enqueueResults(); err != nil {
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
	if p.returned != nil {
		purego.SyscallN(drv.memFreeHost, uintptr(p.returned))
	}
}
