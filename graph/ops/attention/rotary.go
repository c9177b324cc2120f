package attention

import "github.com/sambatrain/sambatrain/graph"

// Rotation turns the heads of queries and keys by angles that grow with their positions, before they meet.
type Rotation struct {
	// Turn is the op that does it and Back the one of its gradient, both x[B T H*D] -> y[B T H*D], of any number of heads.
	Turn, Back *graph.Spec
	// Base is that of the angles: channels i and i + D/2 turn by Base^(-2i/D) a token. Kernels that turn gradients back
	// themselves go by it.
	Base float64
}

// RotarySpec is Spec of q and k that r has turned: qr and kr are saved for the backward op, which turns dq and dk back.
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
		turnQ, turnK := r.cpu(r.Turn, call, "H", in[0], out[2]), r.cpu(r.Turn, call, "K", in[1], out[3])
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
	s.Cost = func(d graph.Dims) graph.Cost { return r.add(plain.Cost(d), d) }
	return s
}

// rotaryBackwardSpec is backwardSpec of turned q and k, with the gradients of those that were not.
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
		backQ, backK := r.cpu(r.Back, call, "H", call.Out[0], call.Out[0]), r.cpu(r.Back, call, "K", call.Out[1], call.Out[1])
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

// heads is a call's sizes as a rotation of the query heads, "H", or of the key heads, "K", has them.
func heads(d graph.Dims, of string) graph.Dims {
	return graph.Dims{"B": d["B"], "T": d["T"], "H": d[of], "D": d["D"]}
}

func (r Rotation) cpu(op *graph.Spec, call *graph.CPUCall, of string, x, y graph.Buffer) func() {
	turn := *call
	turn.Dims, turn.In, turn.Out, turn.Workspace = heads(call.Dims, of), []graph.Buffer{x}, []graph.Buffer{y}, nil
	return op.CPU(&turn)
}

// cuda is an op of attention's kernels and the rotation's.
func (r Rotation) cuda(plain *graph.CUDA, launches func(call *graph.CUDACall) ([]graph.Launch, error)) *graph.CUDA {
	return &graph.CUDA{
		Source:    source + "#ifdef " + macro("rotation") + "\n" + r.Turn.CUDA.Source + "#endif\n",
		Launches:  launches,
		Workspace: plain.Workspace,
	}
}

// launches turn q and k.
func (r Rotation) launches(op *graph.Spec, call *graph.CUDACall, q, qr, k, kr graph.DeviceBuffer) ([]graph.Launch, error) {
	var list []graph.Launch
	for _, x := range []struct {
		of       string
		from, to graph.DeviceBuffer
	}{{"H", q, qr}, {"K", k, kr}} {
		turn := *call
		turn.Dims, turn.In, turn.Out = heads(call.Dims, x.of), []graph.DeviceBuffer{x.from}, []graph.DeviceBuffer{x.to}
		some, err := op.CUDA.Launches(&turn)
		if err != nil {
			return nil, err
		}
		for _, l := range some {
			l.Defines[macro("rotation")] = "1"
			list = append(list, l)
		}
	}
	return list, nil
}

// add is a cost with that of turning q and k.
func (r Rotation) add(c graph.Cost, d graph.Dims) graph.Cost {
	for _, of := range []string{"H", "K"} {
		turn := r.Turn.Cost(heads(d, of))
		c.FLOPs, c.Bytes = c.FLOPs+turn.FLOPs, c.Bytes+turn.Bytes
	}
	return c
}
