//go:build linux

package cuda

import (
	"errors"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

// Join implements graph.Device.
func (d *Device) Join(c graph.Comm) error {
	s, ok := c.(graph.StreamComm)
	if !ok {
		return errors.New("cuda: the processes are joined by a library that does not reach a GPU's memory; GPUs want NCCL")
	}
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	const nonBlocking, withoutTiming = 1, 2
	if err := d.driver.call("cuStreamCreate", d.driver.streamCreate, uintptr(unsafe.Pointer(&d.side)), nonBlocking); err != nil {
		return err
	}
	for _, e := range []*uintptr{&d.fork, &d.joined} {
		if err := d.driver.call("cuEventCreate", d.driver.eventCreate, uintptr(unsafe.Pointer(e)), withoutTiming); err != nil {
			return err
		}
	}
	s.OnStream(d.side)
	d.comm = s
	return nil
}

// Within runs f on a thread for which the GPU's context is current.
func (d *Device) Within(f func() error) error {
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	return f()
}

// collective is a call to other processes, on a stream of its own, so that kernels
// behind it need not wait unless they read what it gives.
type collective struct {
	d *Device
	graph.Collective
	// awaited: a later step of the program touches the vector.
	awaited bool
}

func (c *collective) enqueue(stream uintptr) error {
	if c.d.comm == nil {
		return nil
	}
	drv := c.d.driver
	if err := drv.call("cuEventRecord", drv.eventRecord, c.d.fork, stream); err != nil {
		return err
	}
	if err := drv.call("cuStreamWaitEvent", drv.streamWaitEvent, c.d.side, c.d.fork, 0); err != nil {
		return err
	}
	address := uintptr(c.Address)
	x := graph.Vector{Address: *(*unsafe.Pointer)(unsafe.Pointer(&address)), Elements: c.Elements}
	var err error
	switch c.Kind {
	case graph.AllReduce:
		err = c.d.comm.AllReduce(x)
	case graph.ReduceScatter:
		err = c.d.comm.ReduceScatter(x)
	case graph.AllGather:
		err = c.d.comm.AllGather(x)
	}
	if err != nil {
		return err
	}
	if err := drv.call("cuEventRecord", drv.eventRecord, c.d.joined, c.d.side); err != nil || !c.awaited {
		return err
	}
	return c.d.await(stream)
}

// await makes a stream wait for all calls to other processes so far.
func (d *Device) await(stream uintptr) error {
	return d.driver.call("cuStreamWaitEvent", d.driver.streamWaitEvent, stream, d.joined, 0)
}

// copying moves bytes within the GPU's memory.
type copying struct {
	d *Device
	graph.Copy
}

func (c *copying) enqueue(stream uintptr) error {
	return c.d.driver.call("cuMemcpyDtoDAsync", c.d.driver.copyDtoDAsync, uintptr(c.To), uintptr(c.From), uintptr(c.Bytes), stream)
}

// awaits finds the calls to other processes whose result the program itself needs, and
// reports whether any is left to wait for at its end.
func awaits(plan *graph.Plan, steps [][]command) (open bool) {
	touches := func(s graph.Step, of graph.Slot) bool {
		for _, list := range [][]graph.Slot{s.In, s.Out} {
			for _, o := range list {
				if o.Region == of.Region && o.Offset < of.Offset+of.Cols && of.Offset < o.Offset+o.Rows*o.Stride {
					return true
				}
			}
		}
		return false
	}
	for i, commands := range steps {
		for _, c := range commands {
			call, ok := c.(*collective)
			if !ok {
				continue
			}
			of := plan.Steps[i].In[0]
			if len(plan.Steps[i].Out) > 0 {
				of = plan.Steps[i].Out[0]
			}
			for _, later := range plan.Steps[i+1:] {
				call.awaited = call.awaited || touches(later, of)
			}
			open = open || !call.awaited
		}
	}
	return open
}
