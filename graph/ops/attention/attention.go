// Package attention is causal softmax attention, with as many key/value heads as query heads (MHA),
// fewer (GQA) or one (MQA), over all earlier tokens or a sliding window of them. It is computed
// block by block with an online softmax (Dao et al., FlashAttention, arXiv 2205.14135): no T x T
// matrix is ever stored.
package attention

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Config holds the attributes of the op.
type Config struct {
	// Heads is the number of query heads.
	Heads int
	// KVHeads divides Heads. Query head h reads key/value head h / (Heads/KVHeads).
	KVHeads int
	// HeadDim is the width of a head. The logits q k are scaled by 1/sqrt(HeadDim).
	HeadDim int
	// Window is the number of tokens that a token sees, including itself; 0 means all before it.
	Window int
}

// Apply is attention of q [B T H*D] over k and v [B T K*D]; the result is [B T H*D]. In the
// builder's stateful form it also sees the tokens of the previous calls, whose keys and values it
// keeps in the states "key" and "value" under the builder's scope.
func Apply(b *graph.Builder, q, k, v graph.Tensor, c Config) graph.Tensor {
	carry := b.Carries()
	if carry == nil || len(q.Shape()) != 3 {
		return b.ApplyByDocument(Spec(c), backwardSpec(c), savedOutputs, q, k, v)
	}
	key, value := c.states(b, q)
	if carry.Begins {
		b.Apply(KeepSpec(c), k, v, key, value)
		return b.Apply(Spec(c), q, k, v)
	}
	return b.Apply(CarrySpec(c), q, k, v, key, value, b.Position(q.Shape()[0]))
}

// states returns the states that hold the keys and values of the previous calls.
func (c Config) states(b *graph.Builder, q graph.Tensor) (key, value graph.Tensor) {
	slots := c.Window
	if slots == 0 {
		slots = b.Carries().Positions
	}
	rows, width := q.Shape()[0], c.KVHeads*c.HeadDim
	return b.Cache("key", rows, slots, width), b.Cache("value", rows, slots, width)
}

// savedOutputs are the outputs that the backward op reads.
var savedOutputs = []int{0, 1}

// Spec is, for the tokens j that token i sees, i-Window < j <= i,
//
//	s[i,j] = q[i] k[j] / sqrt(D)
//	lse[i] = log(sum_j exp(s[i,j]))
//	o[i]   = sum_j exp(s[i,j] - lse[i]) v[j]
//
// in each head. lse is saved for the backward op.
func Spec(c Config) *graph.Spec {
	return &graph.Spec{
		Name:           "attention",
		Signature:      "q[B T H*D], k[B T K*D], v[B T K*D] -> o[B T H*D], lse:f32[B T H]",
		Dims:           c.dims(),
		Derive:         c.check,
		Reference:      c.reference,
		CPU:            c.cpu,
		CUDA:           c.cuda(false),
		CUDAByDocument: c.cuda(true),
		Workspace:      forwardWorkspace,
		InPlace:        []int{0},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			dq := g.Builder().Apply(backwardSpec(c), g.In[0], g.In[1], g.In[2], g.Out[0], g.Out[1], g.DOut)
			return []graph.Tensor{dq, dq.Output(1), dq.Output(2)}
		},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{
				FLOPs: c.visible(d) * float64(4*d["D"]+graph.ExpFLOPs), Products: c.visible(d) * float64(4*d["D"]),
				Bytes: 8*(queryElements(d)+keyElements(d)) + 4*float64(d["B"]*d["T"]*d["H"]),
			}
		},
	}
}

// SpecByDocument is Spec for rows of several documents, none of which sees another; see
// graph.ByDocument.
func SpecByDocument(c Config) *graph.Spec {
	return graph.ByDocument(Spec(c), backwardSpec(c), savedOutputs)
}

// backwardSpec is, with P[i,j] = exp(s[i,j] - lse[i]) and delta[i] = do[i] o[i],
//
//	dv[j]  = sum_i P[i,j] do[i]
//	dS     = P[i,j] (do[i] v[j] - delta[i]) / sqrt(D)
//	dq[i]  = sum_j dS k[j]
//	dk[j]  = sum_i dS q[i]
//
// where dk and dv are also sums over the query heads that share the key/value head.
func backwardSpec(c Config) *graph.Spec {
	return &graph.Spec{
		Name: "attention_backward",
		Signature: "q[B T H*D], k[B T K*D], v[B T K*D], o[B T H*D], lse:f32[B T H], do[B T H*D]" +
			" -> dq[B T H*D], dk[B T K*D], dv[B T K*D]",
		Dims:           c.dims(),
		Derive:         c.check,
		Reference:      c.backwardReference,
		CPU:            c.backwardCPU,
		CUDA:           c.backwardCUDA(false),
		CUDAByDocument: c.backwardCUDA(true),
		Workspace:      backwardWorkspace,
		InPlace:        []int{3},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{
				FLOPs: c.visible(d) * float64(10*d["D"]+graph.ExpFLOPs), Products: c.visible(d) * float64(10*d["D"]),
				Bytes: 16*(queryElements(d)+keyElements(d)) + 4*float64(d["B"]*d["T"]*d["H"]),
			}
		},
	}
}

// CarrySpec is Spec for tokens at positions pos, pos+1, ... of each row's sequence, whose earlier
// tokens' keys and values are in key and value, the token at position p in slot p mod W. W is
// Window; without a window it is the maximum length of a sequence. If pos+T exceeds that, the CPU
// kernel panics and the CUDA kernel returns NaN.
func CarrySpec(c Config) *graph.Spec {
	return &graph.Spec{
		Name:      "attention_carry",
		Signature: "q[B T H*D], k[B T K*D], v[B T K*D], key:mm![B W K*D], value:mm![B W K*D], pos:i32[B] -> o[B T H*D]",
		Dims:      c.dims(),
		Derive:    c.checkStates,
		Reference: c.carryReference,
		CPU:       c.carryCPU,
		CUDA:      c.carryCUDA(),
		Workspace: forwardWorkspace,
		InPlace:   []int{0},
		// The position isn't known, so the cost is that of full states.
		Cost: func(d graph.Dims) graph.Cost {
			states := float64(d["B"] * d["W"] * d["K"] * d["D"])
			pairs := float64(d["B"]*d["H"]*d["T"]) * float64(d["W"])
			return graph.Cost{
				FLOPs: pairs * float64(4*d["D"]+graph.ExpFLOPs), Products: pairs * float64(4*d["D"]),
				Bytes: 8*(states+queryElements(d)) + 16*keyElements(d),
			}
		},
	}
}

// KeepSpec fills key and value as CarrySpec would from the first T tokens of each row's sequence.
// The attention of these tokens is computed by Spec, whose kernels handle whole sequences.
func KeepSpec(c Config) *graph.Spec {
	d := c.dims()
	delete(d, "H")
	return &graph.Spec{
		Name:      "attention_keep",
		Signature: "k[B T K*D], v[B T K*D], key:mm![B W K*D], value:mm![B W K*D] ->",
		Dims:      d,
		Derive:    c.checkStates,
		Reference: func(d graph.Dims, in, _ []graph.Array) {
			for row := range d["B"] * d["T"] {
				slot := row/d["T"]*d["W"] + row%d["T"]%d["W"]
				copy(in[2].Row(slot), in[0].Row(row))
				copy(in[3].Row(slot), in[1].Row(row))
			}
		},
		CPU:  keepCPU,
		CUDA: c.keepCUDA(),
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{Bytes: 16 * float64(d["B"]*min(d["T"], d["W"])*d["K"]*d["D"])}
		},
	}
}

// checkStates checks the sizes of key and value.
func (c Config) checkStates(d graph.Dims) error {
	if err := c.check(d); err != nil {
		return err
	}
	if w := d["W"]; c.Window > 0 && w != c.Window {
		return fmt.Errorf("window is %d and the key and value states hold %d tokens; they must agree", c.Window, w)
	} else if w < d["T"] && c.Window == 0 {
		return fmt.Errorf("%d tokens don't fit key and value states of %d", d["T"], w)
	}
	return nil
}

func (c Config) dims() graph.Dims {
	return graph.Dims{"H": c.Heads, "K": c.KVHeads, "D": c.HeadDim}
}

func (c Config) check(graph.Dims) error {
	switch {
	case c.Heads <= 0 || c.KVHeads <= 0 || c.HeadDim <= 0:
		return fmt.Errorf("heads is %d, kv_heads %d and head_dim %d; they must be positive", c.Heads, c.KVHeads, c.HeadDim)
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("heads is %d and kv_heads %d, which doesn't divide it", c.Heads, c.KVHeads)
	case c.Window < 0:
		return fmt.Errorf("window is %d; it must be positive, or 0 to see all tokens", c.Window)
	}
	return nil
}

// window returns how many of `total` tokens a token can see.
func (c Config) window(total int) int {
	if c.Window == 0 {
		return total
	}
	return min(c.Window, total)
}

// visible returns the number of visible pairs of a query and a key, over all heads.
func (c Config) visible(d graph.Dims) float64 {
	t := d["T"]
	w := c.window(t)
	pairs := float64(w)*float64(w+1)/2 + float64(t-w)*float64(w)
	return pairs * float64(d["B"]*d["H"])
}

func queryElements(d graph.Dims) float64 { return float64(d["B"] * d["T"] * d["H"] * d["D"]) }
func keyElements(d graph.Dims) float64   { return float64(d["B"] * d["T"] * d["K"] * d["D"]) }
