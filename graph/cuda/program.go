//go:build linux

package cuda

import (
	"errors"
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
	borrowed  [graph.Regions]bool // memory that belongs to others, which the program doesn't free
	workspace uint64
	counters  uint64                    // a uint32 for each step, and one that counts the runs
	inputs    unsafe.Pointer            // pinned host copy of region Inputs, unknown to Go's garbage collector; see turns
	returned  unsafe.Pointer            // pinned host memory, where a run leaves results
	results   map[string]unsafe.Pointer // in it, float32; nil for programs with large results
	stored    map[string]bool           // the results that a step stores there itself
	copies    map[string][]float32      // of the other results, for Result
	ints      map[string]unsafe.Pointer // int32 results, in pinned host memory; see turns
	turns     turns
	take      *kernel   // copies the inputs to the GPU; nil if they are copied without a kernel
	give      []*kernel // copy the results to the host
	steps     [][]command
	waits     []*collective // see schedule
	exec      uintptr
	events    []uintptr
}

const counterBytes = 4

// command is one operation on the stream.
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
	prog := &Program{d: d, plan: p, stored: map[string]bool{}, copies: map[string][]float32{}}
	err := d.Within(func() error {
		d.programs = append(d.programs, prog)
		err := prog.build(m, other)
		if err != nil {
			prog.release()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return prog, nil
}

// build gives a program its memory and its commands, and captures them.
func (p *Program) build(m graph.Memory, other *Program) error {
	if err := p.takeMemory(m, other); err != nil {
		return err
	}
	if err := p.placeTurns(); err != nil {
		return err
	}
	for i, s := range p.plan.Steps {
		if err := p.bind(i); err != nil {
			return fmt.Errorf("%s: %w", s.Spec.Name, err)
		}
	}
	if err := p.giveResults(); err != nil {
		return err
	}
	p.awaitInputs()
	p.waits = schedule(p.plan, p.steps)
	return p.capture()
}

// awaitInputs makes the first kernel wait until the inputs are there, and thereby all others.
func (p *Program) awaitInputs() {
	for _, commands := range p.steps {
		if len(commands) == 0 {
			continue
		}
		if k, ok := commands[0].(*kernel); ok {
			k.early = false
		}
		return
	}
}

// call is step i with its buffers.
func (p *Program) call(i int) *graph.CUDACall {
	s := p.plan.Steps[i]
	c := &graph.CUDACall{Dims: s.Dims, Workspace: p.workspace, Counter: p.counters + uint64(counterBytes*i), Multiprocessors: p.d.sms, Capability: p.d.capability}
	for _, in := range s.In {
		c.In = append(c.In, p.buffer(in))
	}
	for _, out := range s.Out {
		c.Out = append(c.Out, p.buffer(out))
	}
	return c
}

// bind adds the commands of step i to the program.
func (p *Program) bind(i int) error {
	s := p.plan.Steps[i]
	c := p.call(i)
	result, host := p.host(i)
	c.Host = host
	launches, err := s.Spec.CUDA.Launches(c)
	if err != nil {
		return err
	}
	var list []command
	for _, l := range launches {
		if l.ToHost {
			p.stored[result] = true
		}
		some, failed := p.commands(s, l)
		list = append(list, some...)
		if err = failed; err != nil {
			break
		}
	}
	p.steps = append(p.steps, list)
	return err
}

// commands are those of one launch; with an error, those that were made before it.
func (p *Program) commands(s graph.Step, l graph.Launch) ([]command, error) {
	if l.Product != nil {
		return p.d.products(*l.Product)
	}
	var c command
	var err error
	if l.Collective != nil {
		c, err = p.d.newCollective(*l.Collective)
	} else {
		c, err = p.d.kernel(s.Spec.Name, s.Spec.CUDA.Source, l)
	}
	if err != nil {
		return nil, err
	}
	return []command{c}, nil
}

// capture records everything that a run does in a CUDA graph, which the driver launches as a whole.
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

// Run implements graph.Program: it submits the whole graph to the GPU and returns before the GPU is
// done. Read waits.
func (p *Program) Run() error {
	if p.exec == 0 {
		return errClosed
	}
	// Not in a closure, which would be allocated in each run.
	leave, err := p.d.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.turn(); err != nil {
		return err
	}
	if err := p.d.driver.call("cuGraphLaunch", p.d.driver.graphLaunch, p.exec, p.d.stream); err != nil {
		return err
	}
	return p.began()
}

var errClosed = errors.New("cuda: the program was released")

// atRest runs f, with the GPU's context current, when the program's runs are done.
func (p *Program) atRest(f func() error) error {
	if p.exec == 0 {
		return errClosed
	}
	return p.d.atRest(f)
}

// RunTimed implements graph.Program, step by step with an event between steps.
func (p *Program) RunTimed(times []time.Duration) error {
	if p.exec == 0 {
		return errClosed
	}
	if len(times) != len(p.steps) {
		return fmt.Errorf("cuda: %d times for %d steps", len(times), len(p.steps))
	}
	return p.d.Within(func() error { return p.runTimed(times) })
}

func (p *Program) runTimed(times []time.Duration) error {
	drv := p.d.driver
	for len(p.events) <= len(p.steps) {
		var e uintptr
		if err := drv.call("cuEventCreate", drv.eventCreate, uintptr(unsafe.Pointer(&e)), 0); err != nil {
			return err
		}
		p.events = append(p.events, e)
	}
	if err := p.turn(); err != nil {
		return err
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
	if err := p.began(); err != nil {
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
	return p.atRest(func() error {
		if p.regions[graph.States] == 0 {
			return nil
		}
		return p.d.driver.call("cuMemsetD8", p.d.driver.memset, uintptr(p.regions[graph.States]), 0, uintptr(4*p.plan.Sizes[graph.States]))
	})
}

// Close implements graph.Program.
func (p *Program) Close() error {
	return p.d.atRest(func() error {
		p.release()
		return nil
	})
}

// release frees what the program owns, also of one that failed to load. The program can't run
// afterwards.
func (p *Program) release() {
	i := slices.Index(p.d.programs, p)
	if i < 0 {
		return // already released
	}
	p.d.programs = slices.Delete(p.d.programs, i, i+1)
	drv := p.d.driver
	if p.exec != 0 {
		purego.SyscallN(drv.graphExecDestroy, p.exec)
		p.exec = 0
	}
	for _, e := range slices.Concat(p.events, p.turns.ended[:]) {
		if e != 0 {
			purego.SyscallN(drv.eventDestroy, e)
		}
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
	for r, address := range p.regions {
		if !p.borrowed[r] {
			p.d.free(address)
		}
	}
	p.d.free(p.workspace)
	p.d.free(p.counters)
	if p.inputs != nil {
		purego.SyscallN(drv.memFreeHost, uintptr(p.inputs))
	}
	if p.returned != nil {
		purego.SyscallN(drv.memFreeHost, uintptr(p.returned))
	}
	for _, ints := range p.ints {
		purego.SyscallN(drv.memFreeHost, uintptr(ints))
	}
}
