package graph

import (
	"fmt"
	"strings"
)

// Region is a block of memory that holds tensors of a plan. All regions except Arena and Inputs
// persist between runs.
type Region uint8

// The regions. Params, Grads, ExpAvg and ExpAvgSq have the same layout, so that an optimizer can
// process them as flat vectors.
const (
	Arena    Region = iota // intermediate results
	Inputs                 // filled by the caller before a run
	States                 // what a run leaves to the next one
	Params                 // trained weights
	Grads                  // their gradients
	Shadow                 // the weights rounded to bfloat16, in the parameters' order
	ExpAvg                 // AdamW's first moment
	ExpAvgSq               // AdamW's second moment
	Regions                // their number
)

func (r Region) String() string {
	names := [...]string{"arena", "inputs", "states", "params", "grads", "shadow", "exp_avg", "exp_avg_sq"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Region(%d)", uint8(r))
}

// Slot is the place of a tensor: it starts at column Col of a block that starts Offset times 4
// bytes into its region. Col and Stride count elements of DType. After each row there are Pad
// elements that belong to no tensor.
type Slot struct {
	Region             Region
	Offset, Col        int
	Rows, Cols, Stride int
	Pad                int
	Shape              Shape
	DType              DType
}

// Overlaps reports whether two tensors share memory, if neither is some columns of a wider one;
// columns count as everything between their first and last element.
func (s Slot) Overlaps(t Slot) bool {
	from, to := s.bytes()
	otherFrom, otherTo := t.bytes()
	return s.Region == t.Region && from < otherTo && otherFrom < to
}

// bytes are the offsets of a tensor's first byte and of the byte after its last, from the start of
// the region.
func (s Slot) bytes() (from, to int) {
	size := s.DType.Size()
	from = 4*s.Offset + size*s.Col
	return from, from + size*((s.Rows-1)*s.Stride+s.Cols)
}

// Step is one kernel call of a plan.
type Step struct {
	*Resolved
	In, Out []Slot
	// Path is the scope of the layer that the call belongs to.
	Path string
	// Precise marks calls of float32 blocks. All their tensors are float32 in mixed precision, too,
	// and a CPU that emulates bfloat16 products does not round their inputs.
	Precise bool
	// Backward marks calls of the backward pass.
	Backward bool
	// Again marks forward calls that the backward pass repeats.
	Again bool
	// Remakes names the forward op whose output a backward call recomputes, if it does.
	Remakes string
}

// ParamSlot is one parameter's place in Params, Grads and the moments.
type ParamSlot struct {
	Name   string
	Shape  Shape
	Offset int
	Init   Init
}

// Plan is a fixed list of kernel calls over memory that is laid out once.
type Plan struct {
	Steps  []Step
	Params []ParamSlot
	// Sizes are the regions' lengths, in elements of 4 bytes.
	Sizes [Regions]int
	// Buckets, with SetSharding, are those of the full layout of the parameters, which the offsets
	// of Params refer to; Sizes are then one process's share.
	Buckets Buckets
	// Inputs, Results and States are found by name.
	Inputs, Results, States map[string]Slot
}

// String lists the steps, for people.
func (p *Plan) String() string {
	var w strings.Builder
	for i, s := range p.Steps {
		fmt.Fprintf(&w, "%4d %-24s %s", i, s.Spec.Name, s.Path)
		for _, o := range s.Out {
			fmt.Fprintf(&w, " %v %v@%v+%d", o.Shape, o.DType, o.Region, o.Offset)
		}
		w.WriteByte('\n')
	}
	return w.String()
}

// Repeated counts, by op, the forward calls whose outputs the backward pass recomputes.
func (p *Plan) Repeated() map[string]int {
	calls := map[string]int{}
	for _, s := range p.Steps {
		if s.Again {
			calls[s.Spec.Name]++
		}
		if s.Remakes != "" {
			calls[s.Remakes]++
		}
	}
	return calls
}
