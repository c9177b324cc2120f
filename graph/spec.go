package graph

import (
	"fmt"
	"math/rand/v2"
)

// Spec describes everything about one op: its inputs and outputs, its meaning, its kernels, its
// gradient and its cost. An op's folder builds it from the op's attributes; nothing else in the
// project describes an op.
type Spec struct {
	// Name is the op's folder, or the folder's name and a suffix for what the op does ("linear",
	// "linear_dw").
	Name string
	// Signature gives names and shapes: `x[B T D], w[D] -> y[B T D], rstd[B T]`.
	// A name may carry :i32 for int32, or a Kind, :f32 or :mm; an input marked ! is
	// updated in place. Only output 0 can be differentiated; the others are saved for
	// the backward op, or read as results.
	Signature string
	// Dims are the symbols of the signature whose sizes the attributes fix.
	Dims Dims
	// Derive adds symbols that follow from others (such as the number of chunks of T) and rejects
	// sizes that make no sense. Optional.
	Derive func(d Dims) error
	// Reference defines the op's meaning, in float64: slow and obvious.
	Reference func(d Dims, in, out []Array)
	// CPU binds the kernel to its buffers and returns the function that runs it. Everything that a
	// run needs is allocated here: the returned function allocates nothing.
	CPU func(c *CPUCall) func()
	// Allocates marks an op whose CPU kernel allocates while it runs after all.
	Allocates bool
	// Workspace is the scratch memory that the CPU kernel needs for this many workers, in float32
	// elements. Its contents do not survive the call. Optional.
	Workspace func(d Dims, workers int) int
	// Gradient adds the backward pass. nil: the op can't be differentiated.
	Gradient func(g *Gradient) []Tensor
	// Cost is the work of one call. Benchmarks compare it with the machine's peak.
	Cost func(d Dims) Cost
	// CUDA describes how the op runs on an NVIDIA GPU. nil: it has no kernel there.
	CUDA *CUDA
	// CUDAByDocument is the same for its form by document; see ByDocument.
	CUDAByDocument *CUDA
	// Collective is set for an op that is a call to other processes: which call. nil for all
	// others.
	Collective *CollectiveKind
	// Promote gives output 0 the widest type among the inputs in mixed precision.
	Promote bool
	// Added returns the op that also adds a tensor z, its last input, to output 0. A plan uses it
	// in place of this op followed by a sum. nil: there is none.
	Added func() *Spec
	// Rounded returns the op that also returns output 0 in bfloat16, as its last output. A plan
	// uses it in place of this op followed by a rounding. nil: there is none.
	Rounded func() *Spec
	// Unrounded returns, for an op that Rounded returned, the op without its last output. A plan
	// uses it where output 0 can be a Float24, whose first plane is the rounded tensor. It is nil if
	// the output can't be one.
	Unrounded func() *Spec
	// Narrow lists the inputs that may be Float24.
	Narrow []int
	// Merged is set for an op that computes f(a, b) + z, and returns the op f. If z is f(c, d), a
	// plan computes the sum as one f: of both first inputs side by side, and both second inputs one
	// below the other. nil for all other ops.
	Merged func() *Spec
	// Again is set for a backward op whose first inputs are those of the op named Forward, which
	// has one output. It returns the op that also computes that output, as its last. A plan uses it
	// in place of both where it would otherwise repeat the forward op. nil: there is none.
	Again   func() *Spec
	Forward string
	// Over names, for each output, the input whose memory it may overwrite if nothing else reads
	// that input afterwards. A plan may place recomputed inputs where outputs will be.
	Over []int
	// Stacks: input 1 is a weight, and if several weights are stacked one below the other, the
	// output is the outputs of the separate weights side by side.
	Stacks bool
	// Norm is set if output 0 is input 0 normalized by its root mean square and scaled by input 1.
	Norm *Norm
	// Normed returns the op that normalizes input 0 first: it takes the norm's input and scale in
	// place of input 0. nil: there is none.
	Normed func(n Norm) *Spec
	// Gates: output 0 is silu(input 0) times input 1. Gated returns the op that computes this from
	// the two halves of its own output columns. nil: there is none.
	Gates bool
	Gated func() *Spec
	// Convolves: output 0 is a causal convolution of input 0, separately for each channel.
	// Convolved returns the op that also applies the convolution conv to the first columns of its
	// output 0; it takes conv's other inputs after its own. nil: there is none.
	Convolves bool
	Convolved func(conv *Spec) *Spec
	// Projected returns the op that computes input 1 itself, as the product of a tensor and a
	// weight, which it takes in place of input 1. nil: there is none.
	Projected func() *Spec
	// Made returns the op that computes inputs 0 and 1 itself, each as the product of one tensor
	// with a weight (Stacks). It takes that tensor and both weights; if kept is true it returns
	// inputs 0 and 1 after its output. nil: there is none.
	Made func(kept bool) *Spec
	// Pulls: output 0 is input 0 times a weight, input 1. Pulled returns the op that computes its
	// last input itself as such a product; it takes the product's inputs before its others. nil:
	// there is none.
	Pulls  bool
	Pulled func() *Spec
	// Takes reports whether the op supports inputs of these sizes. nil: it supports any.
	Takes func(d Dims) bool
	// InPlace lists the inputs whose buffer output 0 may reuse when nothing reads them afterwards.
	// They must have output 0's shape.
	InPlace []int
}

// Norm is the attribute of a normalization.
type Norm struct {
	Epsilon float64 // added to the mean square
}

// Cost is an op's work: floating-point operations, and the bytes that it must at least read and
// write in float32. A multiply-add counts as two operations, an exponential or a logarithm as
// ExpFLOPs, any other operation as one. Products is the part of FLOPs that is in matrix products.
type Cost struct {
	FLOPs, Bytes, Products float64
}

// ExpFLOPs is what an exponential counts as, the time of eight multiply-adds: rounding the
// exponent, the remainder, a polynomial of five terms, and scaling.
const ExpFLOPs = 16

// Array is a dense float64 tensor for references. Integers are represented exactly.
type Array struct {
	Shape Shape
	Data  []float64
}

// NewArray is an array of zeros.
func NewArray(s Shape) Array { return Array{Shape: s, Data: make([]float64, s.Size())} }

// Row is row i, the last dimension's elements.
func (a Array) Row(i int) []float64 {
	c := a.Shape.Cols()
	return a.Data[i*c : (i+1)*c]
}

// Buffer is a tensor in host memory. Element (i, j) of its Rows x Cols view is at [i*Stride+j] of
// F32 or, for int32, of I32.
type Buffer struct {
	Rows, Cols, Stride int
	F32                []float32
	I32                []int32
}

// Row is row i of a float32 buffer.
func (b Buffer) Row(i int) []float32 {
	o := i * b.Stride
	return b.F32[o : o+b.Cols : o+b.Cols]
}

// Dense reports whether the rows are contiguous.
func (b Buffer) Dense() bool { return b.Stride == b.Cols || b.Rows <= 1 }

// Pool distributes tasks over a CPU's workers.
type Pool interface {
	// Workers is the number of tasks that can run at once; at least 1.
	Workers() int
	// Run calls task for each task number in [0, tasks), in any order, on any worker number in [0,
	// Workers()), and returns when all are done. A kernel's result must not depend on which worker
	// ran which task. A task must not call Run.
	Run(tasks int, task func(task, worker int))
}

// CPUCall is one op with its buffers, for binding a kernel to them.
type CPUCall struct {
	Dims    Dims
	In, Out []Buffer
	Pool    Pool
	// Workspace has the size that Spec.Workspace returned.
	Workspace []float32
	// RoundFactors: products with a weight round both factors to bfloat16.
	RoundFactors bool
	// Comm connects the processes of a run; nil for a single process.
	Comm Comm
	// Fail makes the program's run return err. A kernel calls it when it can't reach other
	// processes.
	Fail func(err error)
}

// Gradient is what an op's backward pass is built from.
type Gradient struct {
	// In are the op's inputs, and Out its outputs, including the saved ones.
	In, Out []Tensor
	// DOut is the gradient of Out[0].
	DOut Tensor
	b    *Builder
}

// Builder is the builder that the backward ops are added to.
func (g *Gradient) Builder() *Builder { return g.b }

// IsSeed reports whether DOut is the constant 1 that starts the backward pass, that is, whether
// Out[0] is the loss itself.
func (g *Gradient) IsSeed() bool { return g.DOut.isSeed() }

// Case is one concrete use of an op. The test harness checks it against the
// reference, and the benchmark times it.
type Case struct {
	Name string
	Spec *Spec
	// Dims are the sizes of the signature's symbols that neither Spec.Dims nor Spec.Derive
	// determines.
	Dims Dims
	// Fill generates an input, by name, where standard normal numbers make no sense.
	Fill map[string]Fill
	// Bench marks a real model's shape: it is timed, and too large for the reference.
	Bench bool
}

// Fill generates one input of a case.
type Fill func(r *rand.Rand, a Array)

// Uniform fills an array with numbers in [low, high).
func Uniform(low, high float64) Fill {
	return func(r *rand.Rand, a Array) {
		for i := range a.Data {
			a.Data[i] = low + (high-low)*r.Float64()
		}
	}
}

// Integers fills an array with integers in [low, high).
func Integers(low, high int) Fill {
	return func(r *rand.Rand, a Array) {
		for i := range a.Data {
			a.Data[i] = float64(low + r.IntN(high-low))
		}
	}
}

// Resolved is a Spec whose sizes are all known.
type Resolved struct {
	Spec *Spec
	Dims Dims
	// In and Out are the operands, with names, in the signature's order.
	In, Out []Operand
}

// Operand is one tensor of a resolved signature.
type Operand struct {
	Name    string
	Shape   Shape
	DType   DType
	Updated bool
	// Strided: a kernel must accept rows that are not contiguous. True for float32 activations,
	// whose first two dimensions are B and T, and for weights that are inputs of matrix products.
	Strided bool
	Kind    Kind
}

// Kind says what mixed precision does with a float operand.
type Kind uint8

const (
	// Free, unmarked: an output is bfloat16; an input has the type that its producer gave it.
	Free Kind = iota
	// Precise, `:f32`: float32 in any precision. A parameter so marked is the float32
	// master weight.
	Precise
	// Factor, `:mm`: an input of a matrix product, bfloat16 in mixed precision. A float32 tensor is
	// rounded for it, once for all such readers.
	Factor
)

// Resolve determines the sizes of all symbols from the inputs' shapes and checks them.
func (s *Spec) Resolve(in []Shape) (*Resolved, error) {
	sig, err := parseSignature(s.Signature)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	d, err := sig.bind(s.Dims, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return s.resolve(sig, d)
}

// ResolveDims is Resolve for a case, whose symbols have sizes already.
func (s *Spec) ResolveDims(dims Dims) (*Resolved, error) {
	sig, err := parseSignature(s.Signature)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	d := Dims{}
	for k, v := range s.Dims {
		d[k] = v
	}
	for k, v := range dims {
		d[k] = v
	}
	return s.resolve(sig, d)
}

func (s *Spec) resolve(sig signature, d Dims) (*Resolved, error) {
	if s.Derive != nil {
		if err := s.Derive(d); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	r := &Resolved{Spec: s, Dims: d}
	for _, part := range []struct {
		from []operand
		to   *[]Operand
	}{{sig.in, &r.In}, {sig.out, &r.Out}} {
		for _, o := range part.from {
			shape, err := o.shape(d)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			*part.to = append(*part.to, Operand{Name: o.name, Shape: shape, DType: o.dtype, Updated: o.updated, Strided: o.strided(), Kind: o.kind})
		}
	}
	for _, k := range s.InPlace {
		if k < 0 || k >= len(r.In) || len(r.Out) == 0 || r.In[k].DType != r.Out[0].DType || !r.In[k].Shape.Equal(r.Out[0].Shape) {
			return nil, fmt.Errorf("%s: InPlace input %d does not have the shape and type of output 0", s.Name, k)
		}
	}
	return r, nil
}
