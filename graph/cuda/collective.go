//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
)

// Join implements graph.Device.
func (d *Device) Join(c graph.Comm) error {
	s, ok := c.(graph.StreamComm)
	if !ok {
		return errors.New("cuda: the processes are joined by a library that does not reach a GPU's memory; GPUs want NCCL")
	}
	return d.Within(func() (err error) {
		// Of the same priority as the kernels: the gathers that run.shard full issues ahead must
		// not take SMs away from them (docs/LOG.md).
		const nonBlocking = 1
		if err := d.driver.call("cuStreamCreate", d.driver.streamCreate, uintptr(unsafe.Pointer(&d.side)), nonBlocking); err != nil {
			return err
		}
		if d.fork, err = d.newEvent(); err != nil {
			return err
		}
		s.OnStream(d.side)
		d.comm = s
		return d.rehearse()
	})
}

// rehearse makes each kind of call once with few and with many elements: the library connects at
// the first call of a kind, which must not happen during a capture.
func (d *Device) rehearse() error {
	for _, each := range []int{4, workspaceBytes / 4 / d.comm.Size()} {
		x := graph.Vector{Address: pointer(d.scratch), Elements: each * d.comm.Size()}
		for _, kind := range []graph.CollectiveKind{graph.AllReduce, graph.ReduceScatter, graph.AllGather} {
			if err := kind.Do(d.comm, x, x); err != nil {
				return err
			}
		}
	}
	return d.driver.call("cuStreamSynchronize", d.driver.streamSynchronize, d.side)
}

// Leave implements graph.Device. The library waits for the end of all graphs that contain calls of
// it.
func (d *Device) Leave() error {
	if d.comm == nil {
		return nil
	}
	return d.atRest(func() error {
		for len(d.programs) > 0 {
			d.programs[0].release()
		}
		err := d.comm.Close()
		d.comm = nil
		purego.SyscallN(d.driver.eventDestroy, d.fork)
		purego.SyscallN(d.driver.streamDestroy, d.side)
		return err
	})
}

// newEvent is an event for ordering streams.
func (d *Device) newEvent() (e uintptr, err error) {
	const withoutTiming = 2
	err = d.driver.call("cuEventCreate", d.driver.eventCreate, uintptr(unsafe.Pointer(&e)), withoutTiming)
	return e, err
}

// pointer converts a device address.
func pointer(address uint64) unsafe.Pointer {
	a := uintptr(address)
	return *(*unsafe.Pointer)(unsafe.Pointer(&a))
}

// collective is a call to other processes, on a separate stream: kernels after it wait for it only
// if they access its vectors.
type collective struct {
	d *Device
	graph.Collective
	done uintptr // an event; 0 with a single process
}

func (d *Device) newCollective(c graph.Collective) (*collective, error) {
	call := &collective{d: d, Collective: c}
	if d.comm == nil {
		return call, nil
	}
	var err error
	call.done, err = d.newEvent()
	return call, err
}

func (c *collective) enqueue(stream uintptr) error {
	drv := c.d.driver
	if c.d.comm == nil {
		if c.From.Address == c.To.Address {
			return nil
		}
		return drv.call("cuMemcpyDtoDAsync", drv.copyDtoDAsync, uintptr(c.To.Address), uintptr(c.From.Address), uintptr(c.To.Cols*c.To.DType.Size()), stream)
	}
	if err := drv.call("cuEventRecord", drv.eventRecord, c.d.fork, stream); err != nil {
		return err
	}
	if err := drv.call("cuStreamWaitEvent", drv.streamWaitEvent, c.d.side, c.d.fork, 0); err != nil {
		return err
	}
	if err := c.Kind.Do(c.d.comm, vector(c.From), vector(c.To)); err != nil {
		return err
	}
	return drv.call("cuEventRecord", drv.eventRecord, c.done, c.d.side)
}

func vector(b graph.DeviceBuffer) graph.Vector {
	return graph.Vector{Address: pointer(b.Address), Elements: b.Cols, DType: b.DType}
}

// await makes a stream wait for a call to other processes, and for all earlier ones.
func (c *collective) await(stream uintptr) error {
	if c.done == 0 {
		return nil
	}
	return c.d.driver.call("cuStreamWaitEvent", c.d.driver.streamWaitEvent, stream, c.done, 0)
}

// schedule determines before which steps of a plan the kernels' stream must wait, and for which
// call: the last one that accesses memory which the step accesses, too. The entry after the last
// step is the program's end, which waits for all calls.
func schedule(plan *graph.Plan, steps [][]command) []*collective {
	waits := make([]*collective, len(steps)+1)
	type call struct {
		step int
		*collective
	}
	var open []call // not waited for yet, in order
	for i, commands := range steps {
		own := collectiveOf(commands)
		for k := len(open) - 1; k >= 0 && own == nil; k-- {
			if touch(&plan.Steps[i], &plan.Steps[open[k].step]) {
				waits[i], open = open[k].collective, open[k+1:]
				break
			}
		}
		if own != nil {
			open = append(open, call{i, own})
		}
	}
	if len(open) > 0 {
		waits[len(steps)] = open[len(open)-1].collective
	}
	return waits
}

// collectiveOf is the call to other processes that a step consists of. Its stream orders it with
// the other calls.
func collectiveOf(commands []command) *collective {
	if len(commands) != 1 {
		return nil
	}
	c, _ := commands[0].(*collective)
	return c
}

// touch reports whether two steps access common memory.
func touch(a, b *graph.Step) bool {
	for _, s := range [][]graph.Slot{a.In, a.Out} {
		for _, x := range s {
			for _, t := range [][]graph.Slot{b.In, b.Out} {
				for _, y := range t {
					if x.Overlaps(y) {
						return true
					}
				}
			}
		}
	}
	return false
}

// runStep enqueues step i on the stream.
func (p *Program) runStep(i int) error {
	if w := p.waits[i]; w != nil {
		if err := w.await(p.d.stream); err != nil {
			return err
		}
	}
	for _, c := range p.steps[i] {
		if err := c.enqueue(p.d.stream); err != nil {
			return fmt.Errorf("%s: %w", p.plan.Steps[i].Spec.Name, err)
		}
	}
	return nil
}

// awaitAll makes the stream wait for the calls that are still open at the program's end.
func (p *Program) awaitAll() error {
	if w := p.waits[len(p.steps)]; w != nil {
		return w.await(p.d.stream)
	}
	return nil
}
