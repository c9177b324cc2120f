package verify

import (
	"errors"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/reference"
)

// emulated is a device that computes in float64 with each op's reference, and rounds where a plan
// uses bfloat16, as a GPU does.
type emulated struct{ graph.Device }

func (emulated) Name() string               { return "emulation" }
func (emulated) FreeMemory() (int64, error) { return 1 << 40, nil }

func (emulated) NewMemory(sizes [graph.Regions]int) (graph.Memory, error) {
	m := &emulatedMemory{}
	for r := graph.Params; r < graph.Regions; r++ {
		m.regions[r] = make([]float64, sizes[r])
	}
	return m, nil
}

func (emulated) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	regions := reference.NewMemory(p)
	copy(regions[graph.Params:], m.(*emulatedMemory).regions[graph.Params:])
	return &emulatedProgram{plan: p, regions: regions}, nil
}

type emulatedMemory struct{ regions reference.Memory }

func (m *emulatedMemory) Read(r graph.Region, offset int, dst []float32) error {
	for i := range dst {
		dst[i] = float32(m.regions[r][offset+i])
	}
	return nil
}

func (m *emulatedMemory) Write(r graph.Region, offset int, src []float32) error {
	copy(m.regions[r][offset:], wide(src))
	return nil
}

func (m *emulatedMemory) Clear(r graph.Region) error {
	clear(m.regions[r])
	return nil
}

type emulatedProgram struct {
	graph.Program
	plan    *graph.Plan
	regions *reference.Memory
}

func (p *emulatedProgram) Plan() *graph.Plan { return p.plan }
func (p *emulatedProgram) Run() error        { return p.regions.Run(p.plan) }

func (p *emulatedProgram) WriteInts(name string, src []int32) error {
	p.regions.Write(p.plan.Inputs[name], wide(src))
	return nil
}

func (p *emulatedProgram) WriteFloats(name string, src []float32) error {
	p.regions.Write(p.plan.Inputs[name], wide(src))
	return nil
}

func (p *emulatedProgram) Read(name string, dst []float32) error {
	s, ok := p.plan.Results[name]
	if !ok {
		return errors.New("no such result")
	}
	for i, x := range p.regions.Read(s).Data {
		dst[i] = float32(x)
	}
	return nil
}

func wide[T int32 | float32](src []T) []float64 {
	list := slices.Grow([]float64(nil), len(src))
	for _, x := range src {
		list = append(list, float64(x))
	}
	return list
}
