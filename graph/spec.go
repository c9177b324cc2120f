package graph

import (
	"fmt"
	"math/rand/v2"
)

// Spec says everything about one op: what it takes and gives, what it means,
// how it runs, how it is differentiated and what it costs. An op's folder makes
// it from the op's attributes; nothing else in the project describes an op.
type Spec struct {
	// Name is the op's folder, or the folder's name and what it does there
	// ("linear", "linear_dw").
	Name string
	// Signature gives names and shapes: `x[B T D], w[D] -> y[B T D], rstd[B T]`.
	// A name may carry :i32 for int32, or a Kind, :f32 or :mm; an input marked ! is
	// updated in place. Only output 0 can be differentiated; the others are saved for
	// the backward op, or read as results.
	Signature string
	// Dims are the signature's symbols that the attributes fix.
	Dims Dims
	// Derive adds symbols that follow from others (the number of chunks of T), and
	// refuses sizes that make no sense. Optional.
	Derive func(d Dims) error
	// Reference is the op's meaning, in float64: slow and obvious.
	Reference func(d Dims, in, out []Array)
	// CPU binds the kernel to its buffers and returns what runs it. All that a run
	// needs is made here: the returned function allocates nothing.
	CPU func(c *CPUCall) func()
	// Allocates: the CPU kernel allocates as it runs, all the same.
	Allocates bool
	// Workspace is the number of float32s of scratch that the CPU kernel wants for
	// this many workers. Its contents don't survive the call. Optional.
	Workspace func(d Dims, workers int) int
	// Gradient emits the backward pass. nil: the op can't be differentiated.
	Gradient func(g *Gradient) []Tensor
	// Cost is the work of one call, for benchmarks' shares of a machine's peak.
	Cost func(d Dims) Cost
	// CUDA is how the op runs on an NVIDIA GPU. nil: it has no kernel there.
	CUDA *CUDA
	// CUDAByDocument is how its form by document does, see ByDocument.
	CUDAByDocument *CUDA
	// Collective is the call to other processes that the op is. nil: it is none.
	Collective *CollectiveKind
	// Promote gives output 0 of mixed precision the widest type among the inputs.
	Promote bool
	// Added is the op that also adds a tensor z, its last input, to output 0. A plan
	// runs it in place of this op and a sum. nil: there is none.
	Added func() *Spec
	// Rounded is the op that also gives output 0 in bfloat16, as its last output. A plan
	// runs it in place of this op and a rounding. nil: there is none.
	Rounded func() *Spec
	// Merged is, of an op that adds z to what another op makes of its two inputs, that
	// op, where with z an output of it too, the sum is what it makes of both first inputs
	// side by side and both second inputs one below the other. nil: it is not.
	Merged func() *Spec
	// Again is, of a backward op whose first inputs are those of the op named Forward, which
	// has one output, the op that also makes that output, as its last. A plan runs it in place
	// of both where it would repeat the forward op. nil: there is none.
	Again   func() *Spec
	Forward string
	// Over names, for each output, the input in whose memory it may lie, which nothing else
	// reads afterwards. A plan lets inputs that are computed again lie where outputs will.
	Over []int
	// Stacks: input 1 is a weight, and what weights one below the other make of input 0 is
	// what each makes, side by side.
	Stacks bool
	// Norm says that output 0 is input 0 normalized by its root mean square, and scaled by
	// input 1. nil: it is not.
	Norm *Norm
	// Normed is the op that normalizes input 0 first: it takes that and the norm's scale in
	// its place. nil: there is none.
	Normed func(n Norm) *Spec
	// Gates says that output 0 is silu(input 0) times input 1, and Gated is the op that gives
	// that of the two halves of output 0's columns. nil: there is none.
	Gates bool
	Gated func() *Spec
	// Convolves says that output 0 is a causal convolution of input 0's channels, each by itself,
	// and Convolved is the op that also does that, which the op conv does alone, to output 0's
	// first columns: it takes conv's other inputs behind its own. nil: there is none.
	Convolves bool
	Convolved func(conv *Spec) *Spec
	// Projected is the op that makes input 1 itself, of a tensor and a weight whose product it is,
	// which take its place. nil: there is none.
	Projected func() *Spec
	// Made is the op that makes inputs 0 and 1 itself, each the product of one tensor with a weight
	// (Stacks): it takes that and both weights, and where they are to be kept it gives inputs 0 and
	// 1 behind its output. nil: there is none.
	Made func(kept bool) *Spec
	// Pulls: output 0 is input 0 times a weight, input 1. Pulled is the op that makes its last
	// input itself, which is such a product, whose inputs it takes before its others. nil: there
	// is none.
	Pulls  bool
	Pulled func() *Spec
	// Takes reports whether the op can take inputs of these sizes. nil: any.
	Takes func(d Dims) bool
	// InPlace names the inputs whose buffer output 0 may take over when nothing
	// reads them afterwards. They must have output 0's shape.
	InPlace []int
}

// Norm is the attribute of a normalization.
type Norm struct {
	Epsilon float64 // added to the mean square
}

// Cost is an op's work: floating-point operations, and the bytes that it must at
// least read and write in float32. A multiply-add is two operations, an exponential
// or a logarithm ExpFLOPs, any other one. Products are those of the FLOPs that are in matrix
// products.
type Cost struct {
	FLOPs, Bytes, Products float64
}

// ExpFLOPs is what an exponential counts as, eight multiply-adds' time: rounding the
// exponent, the remainder, a polynomial of five terms, and scaling.
const ExpFLOPs = 16

// Array is a dense float64 tensor, for references. Integers are held exactly.
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

// Buffer is a tensor in a CPU's memory. Element (i, j) of its Rows x Cols view
// is at [i*Stride+j] of F32 or, for int32, of I32.
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

// Dense reports whether the rows lie one behind the other.
func (b Buffer) Dense() bool { return b.Stride == b.Cols || b.Rows <= 1 }

// Pool spreads tasks over a CPU's workers.
type Pool interface {
	// Workers is how many tasks can run at once; at least 1.
	Workers() int
	// Run calls task for each task number in [0, tasks), in any order, on any
	// worker number in [0, Workers()), and returns when all are done. A kernel's
	// result must not depend on which worker ran which task. A task must not call
	// Run.
	Run(tasks int, task func(task, worker int))
}

// CPUCall is one op with its buffers, as a kernel is bound to it.
type CPUCall struct {
	Dims    Dims
	In, Out []Buffer
	Pool    Pool
	// Workspace has the size that the Spec asked for.
	Workspace []float32
	// RoundFactors: products with a weight round both factors to bfloat16.
	RoundFactors bool
	// Comm joins the processes of a run; nil is a run of one.
	Comm Comm
	// Fail makes the program's run return err. A kernel calls it where other processes
	// can't be reached.
	Fail func(err error)
}

// Gradient is what an op's backward pass is built from.
type Gradient struct {
	// In are the op's inputs, and Out its outputs, the saved ones included.
	In, Out []Tensor
	// DOut is the gradient of Out[0].
	DOut Tensor
	b    *Builder
}

// Builder is where the backward ops go.
func (g *Gradient) Builder() *Builder { return g.b }

// IsSeed reports whether DOut is the constant 1 with which the backward pass
// starts: whether Out[0] is the loss itself.
func (g *Gradient) IsSeed() bool { return g.DOut.isSeed() }

// Case is one concrete use of an op. The test harness checks it against the
// reference, and the benchmark times it.
type Case struct {
	Name string
	Spec *Spec
	// Dims are the sizes of the signature's symbols that neither Spec.Dims nor
	// Spec.Derive gives.
	Dims Dims
	// Fill draws an input, by name, where standard normal numbers make no sense.
	Fill map[string]Fill
	// Bench marks a real model's shape: timed, and too large for the reference.
	Bench bool
}

// Fill draws one input of a case.
type Fill func(r *rand.Rand, a Array)

// Uniform fills with numbers of [low, high).
func Uniform(low, high float64) Fill {
	return func(r *rand.Rand, a Array) {
		for i := range a.Data {
			a.Data[i] = low + (high-low)*r.Float64()
		}
	}
}

// Integers fills with whole numbers of [low, high).
func Integers(low, high int) Fill {
	return func(r *rand.Rand, a Array) {
		for i := range a.Data {
			a.Data[i] = float64(low + r.IntN(high-low))
		}
	}
}

// Resolved is a Spec with all its sizes known.
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
	// Strided: a kernel must accept rows that don't lie one behind the other. True
	// of float32 activations, whose first two dimensions are B and T, and of weights that
	// are factors of products.
	Strided bool
	Kind    Kind
}

// Kind says what mixed precision does with a float operand.
type Kind uint8

const (
	// Free, unmarked: an output is bfloat16; an input is whatever its producer made.
	Free Kind = iota
	// Precise, `:f32`: float32 in any precision. A parameter so marked is the float32
	// master weight.
	Precise
	// Factor, `:mm`: an input of a matrix product, bfloat16 in mixed precision. A
	// tensor that is float32 is rounded for it, once for all such readers.
	Factor
)

// Resolve finds the sizes of all symbols from the inputs' shapes and checks them.
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
