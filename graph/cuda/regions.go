//go:build linux

package cuda

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// takeMemory sets the program's regions: those of m and of other, which the program only borrows,
// and its own where these are missing or too small.
func (p *Program) takeMemory(m graph.Memory, other *Program) error {
	lent, sizes, err := p.lent(m, other)
	if err != nil {
		return err
	}
	want := &p.plan.Sizes
	for r := range graph.Regions {
		if lent[r] != 0 && want[r] <= sizes[r] {
			p.regions[r], p.sizes[r], p.borrowed[r] = lent[r], sizes[r], true
			continue
		}
		if r >= graph.Params && want[r] > sizes[r] {
			return fmt.Errorf("cuda: region %v has %d elements, the plan wants %d", r, sizes[r], want[r])
		}
		p.sizes[r] = want[r]
		if p.regions[r], err = p.d.alloc(4 * want[r]); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
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

// lent are the regions that m and other lend to a program, and their sizes in elements.
func (p *Program) lent(m graph.Memory, other *Program) (regions [graph.Regions]uint64, sizes [graph.Regions]int, err error) {
	if m != nil {
		own, ok := m.(*Memory)
		if !ok || own.d != p.d {
			return regions, sizes, fmt.Errorf("cuda: the memory belongs to another device (%T)", m)
		}
		regions, sizes = own.regions, own.sizes
	}
	if other != nil {
		for _, r := range []graph.Region{graph.Arena, graph.States} {
			regions[r], sizes[r] = other.regions[r], other.sizes[r]
		}
	}
	return regions, sizes, nil
}

func (p *Program) buffer(s graph.Slot) graph.DeviceBuffer {
	return graph.DeviceBuffer{
		Address: p.regions[s.Region] + uint64(4*s.Offset) + uint64(s.Col*s.DType.Size()),
		DType:   s.DType, Rows: s.Rows, Cols: s.Cols, Stride: s.Stride, Pad: s.Pad,
		Fixed: s.Region == graph.Params || s.Region == graph.Shadow || s.Region == graph.Inputs,
	}
}
