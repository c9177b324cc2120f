// Package reference runs a plan in float64 with each op's Reference: slow and simple, for
// comparison with every executor.
package reference

import (
	"fmt"
	"math"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// Memory holds each region in float64.
type Memory [graph.Regions][]float64

// NewMemory allocates memory for a plan.
func NewMemory(p *graph.Plan) *Memory {
	m := &Memory{}
	for r := range m {
		m[r] = make([]float64, p.Sizes[r])
		if mixes(graph.Region(r)) {
			m[r] = make([]float64, 2*p.Sizes[r])
		}
	}
	return m
}

// Run executes all of the plan's steps.
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

// Read is a dense copy of a slot. For the bfloat16 copy of the weights it is the rounded
// parameters.
func (m *Memory) Read(s graph.Slot) graph.Array {
	a := graph.NewArray(s.Shape)
	region, from := place(s)
	if s.Region == graph.Shadow {
		region, from = graph.Params, 2*s.Offset+s.Col
	}
	for i := range s.Rows {
		o := from + i*s.Stride
		copy(a.Data[i*s.Cols:(i+1)*s.Cols], m[region][o:o+s.Cols])
	}
	if s.Region == graph.Shadow || s.DType == graph.BFloat16 { // maybe the first plane of a Float24
		roundAll(a.Data)
	}
	return a
}

// Write fills a slot from dense data, rounded to the slot's type.
func (m *Memory) Write(s graph.Slot, data []float64) {
	switch s.DType {
	case graph.BFloat16:
		data = slices.Clone(data)
		roundAll(data)
	case graph.Float24:
		data = slices.Clone(data)
		for i, x := range data {
			data[i] = float64(math.Float32frombits((math.Float32bits(float32(x)) + 0x80) &^ 0xff))
		}
	}
	region, from := place(s)
	for i := range s.Rows {
		o := from + i*s.Stride
		copy(m[region][o:o+s.Cols], data[i*s.Cols:(i+1)*s.Cols])
	}
}

// place is the index of a slot's first element. Offsets count units of 4 bytes. Here an element
// takes a float64 whatever its type, so a region that mixes types has two of them per unit.
func place(s graph.Slot) (graph.Region, int) {
	if mixes(s.Region) {
		return s.Region, 2*s.Offset + s.Col
	}
	return s.Region, s.Offset + s.Col
}

// mixes reports whether a region has tensors of both float32 and bfloat16.
func mixes(r graph.Region) bool { return r == graph.Arena || r == graph.States }

// roundAll rounds to bfloat16, to nearest even.
func roundAll(data []float64) {
	for i, x := range data {
		b := math.Float32bits(float32(x))
		data[i] = float64(math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff))
	}
}
