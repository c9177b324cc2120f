//go:build linux

package cuda

import (
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
)

// turns let the host start a run while the previous one is still working: double buffering in
// pinned memory. There are two buffers ("places") for inputs and two for each int32 result, and
// runs alternate between them. The host does not overwrite what a run reads before that run has
// ended. Programs with large inputs and no int32 results have one buffer.
type turns struct {
	begun  int        // number of runs so far
	stale  bool       // the next run's buffer still holds older inputs than the last run's
	ended  [2]uintptr // events that mark the ends of the last two runs
	length int        // input elements in one buffer
}

// placeTurns allocates the buffers of inputs and int32 results, and makes the kernels that copy
// them.
func (p *Program) placeTurns() (err error) {
	if p.counters, err = p.d.alloc(counterBytes * (len(p.plan.Steps) + 1)); err != nil {
		return fmt.Errorf("counters: %w", err)
	}
	runs := p.counters + uint64(counterBytes*len(p.plan.Steps))
	p.ints = map[string]unsafe.Pointer{}
	for _, name := range slices.Sorted(maps.Keys(p.plan.Results)) {
		s := p.plan.Results[name]
		if s.DType != graph.Int32 {
			continue
		}
		n := s.Rows * s.Cols
		if p.ints[name], err = p.d.allocPinned(2 * 4 * n); err != nil {
			return err
		}
		k, err := p.d.kernel("pinned", pinnedSource, pinned("give_ints", true, p.buffer(s).Address, uint64(uintptr(p.ints[name])), int32(n), runs))
		if err != nil {
			return err
		}
		p.give = append(p.give, k)
	}
	n := p.plan.Sizes[graph.Inputs]
	if n > mostTaken && len(p.ints) == 0 {
		p.inputs, err = p.d.allocPinned(4 * n)
		return err
	}
	if n == 0 && len(p.ints) == 0 {
		return nil
	}
	p.turns.length = n
	if p.inputs, err = p.d.allocPinned(2 * 4 * n); err != nil {
		return err
	}
	for i := range p.turns.ended {
		const withoutTiming = 2
		if err := p.d.driver.call("cuEventCreate", p.d.driver.eventCreate, uintptr(unsafe.Pointer(&p.turns.ended[i])), withoutTiming); err != nil {
			return err
		}
	}
	p.take, err = p.d.kernel("pinned", pinnedSource, pinned("take_inputs", false, uint64(uintptr(p.inputs)), p.regions[graph.Inputs], int32(n), runs))
	return err
}

// pinned returns the launch of a kernel of pinned.cu with a single thread block.
func pinned(name string, early bool, args ...any) graph.Launch {
	return graph.Launch{Kernel: name, Defines: map[string]string{"X_T": "float", "WIDTH": "1"}, Block: [3]int{256, 1, 1}, Early: early, Args: args}
}

// place returns the buffer of the next run's inputs.
func (p *Program) place() unsafe.Pointer {
	return unsafe.Add(p.inputs, 4*p.turns.length*(p.turns.begun%2))
}

// turn copies the last run's inputs to the next run's buffer, as soon as no run reads that buffer.
func (p *Program) turn() error {
	if p.take == nil || !p.turns.stale {
		return nil
	}
	if err := p.await(p.turns.begun - 2); err != nil {
		return err
	}
	p.turns.stale = false
	n := p.turns.length
	both := unsafe.Slice((*uint32)(p.inputs), 2*n)
	now := p.turns.begun % 2
	copy(both[now*n:(now+1)*n], both[(1-now)*n:])
	return nil
}

// began records the end of a run on the stream and switches to the next run's buffers.
func (p *Program) began() error {
	if p.take == nil {
		return nil
	}
	event := p.turns.ended[p.turns.begun%2]
	p.turns.begun++
	p.turns.stale = true
	return p.d.driver.call("cuEventRecord", p.d.driver.eventRecord, event, p.d.stream)
}

// await waits until a run, which must be one of the last two, has ended.
func (p *Program) await(run int) error {
	if run < 0 {
		return nil
	}
	return p.d.driver.call("cuEventSynchronize", p.d.driver.eventSynchronize, p.turns.ended[run%2])
}

// Ints implements graph.Program.
func (p *Program) Ints(name string, back int) ([]int32, error) {
	s := p.plan.Results[name]
	at, ok := p.ints[name]
	switch {
	case p.exec == 0:
		return nil, errClosed
	case !ok:
		return nil, fmt.Errorf("cuda: the plan has no int32 result %s", name)
	case back < 0 || back > 1 || back >= p.turns.begun:
		return nil, fmt.Errorf("cuda: result %s of %d runs before the last of %d", name, back, p.turns.begun)
	}
	leave, err := p.d.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	run, n := p.turns.begun-1-back, s.Rows*s.Cols
	return unsafe.Slice((*int32)(unsafe.Add(at, 4*n*(run%2))), n), p.await(run)
}
