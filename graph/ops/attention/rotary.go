package attention

import (
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// Rotation rotates the heads of queries and keys by angles that grow with their positions, before
// attention.
type Rotation struct {
	// Turn is the op that rotates, and Back the op for its gradient; both are x[B T H*D] -> y[B T
	// H*D], for any number of heads.
	Turn, Back *graph.Spec
	// Base is the base of the angles: channels i and i + D/2 turn by Base^(-2i/D) per token. It is
	// used by kernels that apply the inverse rotation to gradients themselves.
	Base float64
}

// RotarySpec is Spec with q and k first rotated by r. The rotated qr and kr are saved for the
// backward op, which applies the inverse rotation to dq and dk.
func RotarySpec(c Config, r Rotation) *graph.Spec {
	s := Spec(c)
	plain := *s
	s.Name = "attention_rotary"
	s.Signature = "q[B T H*D], k[B T K*D], v[B T K*D] -> o[B T H*D], lse:f32[B T H], qr[B T H*D], kr[B T K*D]"
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		r.Turn.Reference(heads(d, "H"), in[:1], out[2:3])
		r.Turn.Reference(heads(d, "K"), in[1:2], out[3:4])
		plain.Reference(d, []graph.Array{out[2], out[3], in[2]}, out[:2])
	}
	s.CPU = func(call *graph.CPUCall) func() {
		in, out := call.In, call.Out
		turnQ, turnK := r.cpu(r.Turn, call, "H", in[:1], out[2]), r.cpu(r.Turn, call, "K", in[1:2], out[3])
		attend := *call
		attend.In, attend.Out = []graph.Buffer{out[2], out[3], in[2]}, out[:2]
		run := plain.CPU(&attend)
		return func() { turnQ(); turnK(); run() }
	}
	s.CUDA = r.cuda(plain.CUDA, func(call *graph.CUDACall) ([]graph.Launch, error) {
		in, out := call.In, call.Out
		list, err := r.launches(r.Turn, call, in[0], out[2], in[1], out[3])
		if err != nil {
			return nil, err
		}
		attend := *call
		attend.In, attend.Out = []graph.DeviceBuffer{out[2], out[3], in[2]}, out[:2]
		rest, err := plain.CUDA.Launches(&attend)
		return append(list, rest...), err
	})
	s.CUDAByDocument = nil
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		dq := g.Builder().Apply(rotaryBackwardSpec(c, r), g.Out[2], g.Out[3], g.In[2], g.Out[0], g.Out[1], g.DOut)
		return []graph.Tensor{dq, dq.Output(1), dq.Output(2)}
	}
	s.Cost = func(d graph.Dims) graph.Cost {
		c := r.add(plain.Cost(d), d)
		c.Bytes += 4 * (queryElements(d) + keyElements(d)) // the rotated q and k, which are saved
		return c
	}
	return s
}

// rotaryBackwardSpec is backwardSpec for rotated q and k. It returns the gradients of the unrotated
// ones.
func rotaryBackwardSpec(c Config, r Rotation) *graph.Spec {
	s := backwardSpec(c)
	plain := *s
	s.Name = "attention_rotary_backward"
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		dq, dk := graph.NewArray(out[0].Shape), graph.NewArray(out[1].Shape)
		plain.Reference(d, in, []graph.Array{dq, dk, out[2]})
		r.Back.Reference(heads(d, "H"), []graph.Array{dq}, out[:1])
		r.Back.Reference(heads(d, "K"), []graph.Array{dk}, out[1:2])
	}
	s.CPU = func(call *graph.CPUCall) func() {
		run := plain.CPU(call)
		backQ, backK := r.cpu(r.Back, call, "H", call.Out[:1], call.Out[0]), r.cpu(r.Back, call, "K", call.Out[1:2], call.Out[1])
		return func() { run(); backQ(); backK() }
	}
	s.CUDA = r.cuda(plain.CUDA, func(call *graph.CUDACall) ([]graph.Launch, error) {
		p := pass{CUDACall: call}
		list := c.backwardLaunches(p, r.Base)
		if c.kernels(p, backwardOperands(p)...) == onWarpgroups {
			return list, nil
		}
		back, err := r.launches(r.Back, call, call.Out[0], call.Out[0], call.Out[1], call.Out[1])
		return append(list, back...), err
	})
	s.CUDAByDocument = nil
	s.Cost = func(d graph.Dims) graph.Cost { return r.add(plain.Cost(d), d) }
	return s
}

// ApplyRotary is Apply for one token of each row in the builder's stateful form, with q and k first
// rotated by r.
func ApplyRotary(b *graph.Builder, q, k, v graph.Tensor, c Config, r Rotation) graph.Tensor {
	key, value := c.states(b, q)
	return b.Apply(RotaryCarrySpec(c, r), q, k, v, key, value, b.Position(q.Shape()[0]))
}

// RotaryCarrySpec is CarrySpec for one token of each row, with q and k first rotated by r. r.Turn
// also takes positions; r.Back is not used.
func RotaryCarrySpec(c Config, r Rotation) *graph.Spec {
	s := CarrySpec(c)
	plain := *s
	s.Name = "attention_rotary_carry"
	s.Derive = func(d graph.Dims) error {
		if d["T"] != 1 {
			return fmt.Errorf("%d tokens of a row; it takes one", d["T"])
		}
		return plain.Derive(d)
	}
	s.InPlace = nil
	s.Reference = func(d graph.Dims, in, out []graph.Array) {
		turned := slices.Clone(in)
		for i, of := range []string{"H", "K"} {
			turned[i] = graph.NewArray(in[i].Shape)
			r.Turn.Reference(heads(d, of), []graph.Array{in[i], in[5]}, turned[i:i+1])
		}
		plain.Reference(d, turned, out)
	}
	s.Workspace = func(d graph.Dims, workers int) int {
		return d["B"]*(d["H"]+d["K"])*d["D"] + plain.Workspace(d, workers)
	}
	s.CPU = func(call *graph.CPUCall) func() {
		attend := *call
		attend.In = slices.Clone(call.In)
		var turns []func()
		for i, of := range []string{"H", "K"} {
			x := call.In[i]
			n := x.Rows * x.Cols
			attend.In[i] = graph.Buffer{Rows: x.Rows, Cols: x.Cols, Stride: x.Cols, F32: attend.Workspace[:n]}
			attend.Workspace = attend.Workspace[n:]
			turns = append(turns, r.cpu(r.Turn, call, of, []graph.Buffer{x, call.In[5]}, attend.In[i]))
		}
		run := plain.CPU(&attend)
		return func() { turns[0](); turns[1](); run() }
	}
	s.CUDA = r.cuda(plain.CUDA, func(call *graph.CUDACall) ([]graph.Launch, error) {
		if c.carriesOnTiles(call) {
			return c.carryTiles(call, r.Base), nil
		}
		attend := *call
		attend.In = slices.Clone(call.In)
		turned := call.Workspace
		var list []graph.Launch
		for i, of := range []string{"H", "K"} {
			x := call.In[i]
			attend.In[i] = graph.DeviceBuffer{Address: turned, DType: x.DType, Rows: x.Rows, Cols: x.Cols, Stride: x.Cols}
			turned += uint64(4 * x.Rows * x.Cols)
			some, err := r.launch(r.Turn, call, of, []graph.DeviceBuffer{x, call.In[5]}, attend.In[i])
			if err != nil {
				return nil, err
			}
			list = append(list, some...)
		}
		attend.Workspace = turned
		return append(list, c.carryRows(&attend)...), nil
	})
	s.CUDA.Workspace = func(d graph.Dims) int {
		return 4*d["B"]*(d["H"]+d["K"])*d["D"] + plain.CUDA.Workspace(d)
	}
	s.Cost = func(d graph.Dims) graph.Cost { return r.add(plain.Cost(d), d) }
	return s
}

// heads returns a call's sizes as seen by a rotation of the query heads ("H") or key heads ("K").
func heads(d graph.Dims, of string) graph.Dims {
	return graph.Dims{"B": d["B"], "T": d["T"], "H": d[of], "D": d["D"]}
}

func (r Rotation) cpu(op *graph.Spec, call *graph.CPUCall, of string, in []graph.Buffer, y graph.Buffer) func() {
	turn := *call
	turn.Dims, turn.In, turn.Out, turn.Workspace = heads(call.Dims, of), in, []graph.Buffer{y}, nil
	return op.CPU(&turn)
}

// cuda is an op made of attention's kernels and the rotation's.
func (r Rotation) cuda(plain *graph.CUDA, launches func(call *graph.CUDACall) ([]graph.Launch, error)) *graph.CUDA {
	return &graph.CUDA{
		Source:    source + "#ifdef " + macro("rotation") + "\n" + r.Turn.CUDA.Source + "#endif\n",
		Launches:  launches,
		Workspace: plain.Workspace,
	}
}

// launches returns the launches that rotate q and k.
func (r Rotation) launches(op *graph.Spec, call *graph.CUDACall, q, qr, k, kr graph.DeviceBuffer) ([]graph.Launch, error) {
	var list []graph.Launch
	for _, x := range []struct {
		of       string
		from, to graph.DeviceBuffer
	}{{"H", q, qr}, {"K", k, kr}} {
		some, err := r.launch(op, call, x.of, []graph.DeviceBuffer{x.from}, x.to)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	return list, nil
}

// launch returns the launches that rotate the query heads ("H") or key heads ("K").
func (r Rotation) launch(op *graph.Spec, call *graph.CUDACall, of string, in []graph.DeviceBuffer, y graph.DeviceBuffer) ([]graph.Launch, error) {
	turn := *call
	turn.Dims, turn.In, turn.Out = heads(call.Dims, of), in, []graph.DeviceBuffer{y}
	list, err := op.CUDA.Launches(&turn)
	for _, l := range list {
		l.Defines[macro("rotation")] = "1"
	}
	return list, err
}

// add adds the operations that rotate q and k to a cost.
func (r Rotation) add(c graph.Cost, d graph.Dims) graph.Cost {
	for _, of := range []string{"H", "K"} {
		c.FLOPs += r.Turn.Cost(heads(d, of)).FLOPs
	}
	return c
}
