package cpu

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Memory is the persistent regions, and the arena that programs share, as slices.
type Memory struct {
	regions [graph.Regions][]float32
}

// NewMemory implements graph.Device.
func (d *Device) NewMemory(sizes [graph.Regions]int) (graph.Memory, error) {
	m := &Memory{}
	for r := range graph.Regions {
		if r == graph.Inputs || r == graph.States {
			continue
		}
		if sizes[r] < 0 || sizes[r] > maxElements {
			return nil, fmt.Errorf("cpu: region %v can't have %d elements", r, sizes[r])
		}
		m.regions[r] = aligned(sizes[r])
	}
	return m, nil
}

// maxElements is more than any machine can hold, and less than the size at which make panics.
const maxElements = 1 << 45

// Region is the memory of a region itself: on a CPU, host memory is device memory.
func (m *Memory) Region(r graph.Region) []float32 { return m.regions[r] }

// Read implements graph.Memory.
func (m *Memory) Read(r graph.Region, offset int, dst []float32) error {
	part, err := m.part(r, offset, len(dst))
	copy(dst, part)
	return err
}

// Write implements graph.Memory.
func (m *Memory) Write(r graph.Region, offset int, src []float32) error {
	part, err := m.part(r, offset, len(src))
	copy(part, src)
	return err
}

// Clear implements graph.Memory.
func (m *Memory) Clear(r graph.Region) error {
	clear(m.regions[r])
	return nil
}

func (m *Memory) part(r graph.Region, offset, n int) ([]float32, error) {
	if offset < 0 || offset+n > len(m.regions[r]) {
		return nil, fmt.Errorf("cpu: elements %d to %d are outside region %v of %d", offset, offset+n, r, len(m.regions[r]))
	}
	return m.regions[r][offset : offset+n], nil
}
