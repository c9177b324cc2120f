// Package reference runs a plan in float64 with each op's Reference: slow,
// obvious, and what every executor is compared with.
package reference

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Memory holds each region in float64.
type Memory [graph.Regions][]float64

// NewMemory makes room for a plan.
func NewMemory(p *graph.Plan) *Memory {
	m := &Memory{}
	for r := range m {
		m[r] = make([]float64, p.Sizes[r])
	}
	return m
}

// Run does all of the plan's steps.
func (m *Memory) Run(p *graph.Plan) error {
	for i, s := range p.Steps {
		if s.Spec.Reference == nil {
			return fmt.Errorf("step %d: %s has no reference", i, s.Spec.Name)
		}
		in, out := make([]graph.Array, len(s.In)), make([]graph.Array, len(s.Out))
		for k, slot := range s.In {
			in[k] = m.Read(slot)
		}
		for k, slot := range s.Out {
			out[k] = graph.NewArray(slot.Shape)
		}
		s.Spec.Reference(s.Dims, in, out)
		for k, slot := range s.In {
			if s.Resolved.In[k].Updated {
				m.Write(slot, in[k].Data)
			}
		}
		for k, slot := range s.Out {
			m.Write(slot, out[k].Data)
		}
	}
	return nil
}

// Read is a dense copy of a slot.
func (m *Memory) Read(s graph.Slot) graph.Array {
	a := graph.NewArray(s.Shape)
	for i := range s.Rows {
		o := s.Offset + s.Col + i*s.Stride
		copy(a.Data[i*s.Cols:(i+1)*s.Cols], m[s.Region][o:o+s.Cols])
	}
	return a
}

// Write fills a slot from dense data.
func (m *Memory) Write(s graph.Slot, data []float64) {
	for i := range s.Rows {
		o := s.Offset + s.Col + i*s.Stride
		copy(m[s.Region][o:o+s.Cols], data[i*s.Cols:(i+1)*s.Cols])
	}
}
