package graph

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// SetDocuments makes ops that mix tokens treat each document of a row as a separate row: nothing
// crosses a border. starts [B T] holds, for each token, the position in the row where its document
// begins.
func (b *Builder) SetDocuments(starts Tensor) { b.documents = starts }

// ByDocument reports whether documents are set.
func (b *Builder) ByDocument() bool { return b.documents.Valid() }

// ApplyByDocument adds a call of forward or, if documents are set, of its form by document.
// backward is the op of forward's gradient; its inputs are those of forward, then forward's outputs
// with the indices saved, then the gradient of output 0. Its output i is the gradient of input i.
func (b *Builder) ApplyByDocument(forward, backward *Spec, saved []int, in ...Tensor) Tensor {
	if !b.ByDocument() {
		return b.Apply(forward, in...)
	}
	return b.Apply(ByDocument(forward, backward, saved), append(in[:len(in):len(in)], b.documents)...)
}

// ByDocument is an op that computes each document of a row as if it were alone; see
// ApplyByDocument. Its last input is start [B T]. Its outputs are forward's output 0 and the saved
// outputs that have values for each token; other saved outputs are recomputed in the backward pass.
// Its CPU kernels bind forward's kernel to each document while they run.
func ByDocument(forward, backward *Spec, saved []int) *Spec {
	op := newDocumentOp(forward, nil, saved)
	s := op.spec(forward, op.forwardSignature())
	s.Gradient = func(g *Gradient) []Tensor {
		last := len(g.In) - 1
		in := slices.Clone(g.In[:last])
		for _, i := range op.kept() {
			in = append(in, g.Out[op.outputOf(i)])
		}
		in = append(in, g.DOut, g.In[last])
		grads := []Tensor{g.Builder().Apply(documentBackward(forward, backward, saved), in...)}
		for i := 1; i < last; i++ {
			grads = append(grads, grads[0].Output(i))
		}
		return append(grads, Tensor{})
	}
	return s
}

func documentBackward(forward, backward *Spec, saved []int) *Spec {
	op := newDocumentOp(forward, backward, saved)
	return op.spec(backward, op.backwardSignature())
}

const startOperand = "start:i32[B T]"

// sides are a signature's inputs and outputs, as written.
func sides(s string) (in, out []string) {
	left, right, _ := strings.Cut(s, "->")
	return strings.Split(left, ","), strings.Split(right, ",")
}

func (o *documentOp) forwardSignature() string {
	in, out := sides(o.forward.Signature)
	list := []string{out[0]}
	for _, i := range o.kept() {
		if i > 0 {
			list = append(list, out[i])
		}
	}
	return strings.Join(append(in, startOperand), ", ") + " -> " + strings.Join(list, ", ")
}

func (o *documentOp) backwardSignature() string {
	in, out := sides(o.backward.Signature)
	list := slices.Clone(in[:len(o.in)])
	for k, i := range o.saved {
		if o.out[i].byToken() {
			list = append(list, in[len(o.in)+k])
		}
	}
	return strings.Join(append(list, in[len(in)-1], startOperand), ", ") + " -> " + strings.Join(out, ", ")
}

// byToken reports whether the operand has a number, or a row, for each token of a batch.
func (o operand) byToken() bool {
	return (len(o.dims) == 2 || len(o.dims) == 3) && o.dims[0].is("B") && o.dims[1].is("T")
}

// documentOp runs an op once for each document.
type documentOp struct {
	forward, backward *Spec     // backward is nil in the forward op
	saved             []int     // forward's outputs that backward reads
	in, out           []operand // forward's inputs and outputs
	grads             []operand // backward's outputs
}

func newDocumentOp(forward, backward *Spec, saved []int) *documentOp {
	o := &documentOp{forward: forward, backward: backward, saved: saved}
	sig, err := parseSignature(forward.Signature)
	if err != nil {
		panic(err) // the signature is a constant, which the op's own tests parse
	}
	o.in, o.out = sig.in, sig.out
	if backward != nil {
		if sig, err = parseSignature(backward.Signature); err != nil {
			panic(err)
		}
		o.grads = sig.out
	}
	return o
}

// spec is the form by document of forward or backward, without its gradient.
func (o *documentOp) spec(of *Spec, signature string) *Spec {
	return &Spec{
		Name:      of.Name + "_by_document",
		Signature: signature,
		Dims:      of.Dims,
		Derive:    of.Derive,
		Reference: o.reference,
		CPU:       o.bind,
		CUDA:      of.CUDAByDocument,
		Allocates: true,
		Workspace: o.workspace,
		Cost:      of.Cost,
	}
}

// kept are the saved outputs that the form by document has, too.
func (o *documentOp) kept() []int {
	return slices.DeleteFunc(slices.Clone(o.saved), func(i int) bool { return !o.out[i].byToken() })
}

// outputOf is the index in the form by document of forward's output i.
func (o *documentOp) outputOf(i int) int {
	n := 0
	for _, k := range o.kept() {
		if 0 < k && k <= i {
			n++
		}
	}
	return n
}

// place is the index of forward's output i among the tensors of the form by document: its outputs
// in the forward op, its inputs in the backward op. -1: it has none.
func (o *documentOp) place(i int) int {
	at := slices.Index(o.kept(), i)
	switch {
	case o.backward == nil && (i == 0 || at >= 0):
		return o.outputOf(i)
	case o.backward != nil && at >= 0:
		return len(o.in) + at
	}
	return -1
}

// again reports whether the backward op recomputes forward's saved outputs.
func (o *documentOp) again() bool { return len(o.kept()) < len(o.saved) }

// gradientAt is the index of the backward op's input that is the gradient of output 0.
func (o *documentOp) gradientAt() int { return len(o.in) + len(o.kept()) }

// alone is the sizes of one document of n tokens as a batch of its own.
func (o *documentOp) alone(d Dims, n int) Dims {
	one := Dims{}
	maps.Copy(one, o.forward.Dims)
	for _, x := range o.in {
		for _, e := range x.dims {
			for _, symbol := range e {
				if size, ok := d[symbol]; ok {
					one[symbol] = size
				}
			}
		}
	}
	one["B"], one["T"] = 1, n
	for _, s := range []*Spec{o.forward, o.backward} {
		if s != nil && s.Derive != nil {
			if err := s.Derive(one); err != nil {
				panic(fmt.Sprintf("%s: %v", s.Name, err)) // no length up to that of a row is rejected
			}
		}
	}
	return one
}

// eachDocument calls f with the row and the tokens [from, to) of each document.
func eachDocument[N int32 | float64](d Dims, start []N, f func(row, from, to int)) {
	for b := range d["B"] {
		row := start[b*d["T"] : (b+1)*d["T"]]
		from := 0
		for t := 1; t <= len(row); t++ {
			if t == len(row) || int(row[t]) == t {
				f(b, from, t)
				from = t
			}
		}
	}
}

func shapeOf(o operand, d Dims) Shape {
	s, err := o.shape(d)
	if err != nil {
		panic(err) // all symbols are known
	}
	return s
}

// reference is the op in float64.
func (o *documentOp) reference(d Dims, in, out []Array) {
	part := func(x Array, op operand, row, from, to int) Array {
		if !op.byToken() {
			return x
		}
		shape, size := append(Shape{1, to - from}, x.Shape[2:]...), 1
		for _, n := range x.Shape[2:] {
			size *= n
		}
		first := (row*d["T"] + from) * size
		return Array{Shape: shape, Data: x.Data[first : first+(to-from)*size]}
	}
	eachDocument(d, in[len(in)-1].Data, func(row, from, to int) {
		one := o.alone(d, to-from)
		var ins, outs []Array
		for i, op := range o.in {
			ins = append(ins, part(in[i], op, row, from, to))
		}
		for i, op := range o.out {
			if at := o.place(i); o.backward == nil && at >= 0 {
				outs = append(outs, part(out[at], op, row, from, to))
			} else {
				outs = append(outs, NewArray(shapeOf(op, one)))
			}
		}
		if o.backward == nil || o.again() {
			o.forward.Reference(one, ins, outs)
		}
		if o.backward == nil {
			return
		}
		for _, i := range o.saved {
			if at := o.place(i); at >= 0 {
				outs[i] = part(in[at], o.out[i], row, from, to)
			}
			ins = append(ins, outs[i])
		}
		ins = append(ins, part(in[o.gradientAt()], o.out[0], row, from, to))
		var grads []Array
		for _, op := range o.grads {
			grads = append(grads, NewArray(shapeOf(op, one)))
		}
		o.backward.Reference(one, ins, grads)
		for i, op := range o.grads {
			to := part(out[i], op, row, from, to)
			for j, g := range grads[i].Data {
				to.Data[j] += g // added to zeros, or to earlier documents' gradients of a parameter
			}
		}
	})
}

// workspace is enough for a document of any length.
func (o *documentOp) workspace(d Dims, workers int) int {
	most := 0
	for n := 1; n <= d["T"]; n++ {
		one := o.alone(d, n)
		for _, s := range []*Spec{o.forward, o.backward} {
			if s != nil && s.Workspace != nil {
				most = max(most, s.Workspace(one, workers))
			}
		}
	}
	return most
}

// DocumentStarts fills start [B T] with documents of 1 to most tokens.
func DocumentStarts(most int) Fill {
	return func(r *rand.Rand, a Array) {
		for b := range a.Shape.Rows() {
			start, left := 0, 0
			for t := range a.Row(b) {
				if left == 0 {
					start, left = t, 1+r.IntN(most)
				}
				a.Row(b)[t] = float64(start)
				left--
			}
		}
	}
}
