package layers

import (
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
)

// The two initialization schemes in the paper's code.
const (
	// InitMamba: linear weights as PyTorch draws them, the output weights of every sublayer divided
	// by the square root of the number of sublayers, embeddings N(0, 0.02).
	InitMamba = "mamba"
	// InitLlama: all weights N(0, sqrt(2/(5 d_model))), the output weights of every sublayer N(0,
	// 1/(sqrt(d_model) * blocks)) with two sublayers per block.
	InitLlama = "llama"
)

// initializer draws the weights that the initialization scheme affects.
type initializer struct {
	scheme    string
	dModel    int
	sublayers int
}

// linear is for a weight [out in] that reads the stream or a tensor inside a mixer.
func (i initializer) linear(in int) graph.Init {
	if i.scheme == InitLlama {
		return normal(math.Sqrt(2 / (5 * float64(i.dModel))))
	}
	return uniform(in)
}

// output is for a weight [out in] that writes to the stream.
func (i initializer) output(in int) graph.Init {
	if i.scheme == InitLlama {
		return normal(1 / (math.Sqrt(float64(i.dModel)) * float64(i.sublayers) / 2))
	}
	return uniformBound(1 / math.Sqrt(float64(in)) / math.Sqrt(float64(i.sublayers)))
}

// recurrent is for a weight [out in] inside a GLA or retention mixer. These have their own
// initialization, which the mamba scheme keeps: U(-a, a) with a = 2^-2.5 sqrt(6/(in+out)) (Glorot &
// Bengio, 2010).
func (i initializer) recurrent(in, out int) graph.Init {
	if i.scheme == InitLlama {
		return i.linear(in)
	}
	return uniformBound(recurrentBound(in, out))
}

// recurrentOutput is recurrent for a weight [out in] that writes to the stream.
func (i initializer) recurrentOutput(in, out int) graph.Init {
	if i.scheme == InitLlama {
		return i.output(in)
	}
	return uniformBound(recurrentBound(in, out) / math.Sqrt(float64(i.sublayers)))
}

func recurrentBound(in, out int) float64 { return math.Exp2(-2.5) * math.Sqrt(6/float64(in+out)) }

// mega is for a weight [out in] of a Mega mixer's own projections, whose initialization the mamba
// scheme keeps.
func (i initializer) mega(in int) graph.Init {
	if i.scheme == InitLlama {
		return i.linear(in)
	}
	return megaNormal
}

// megaNormal initializes Mega's projections, scales and positions: N(0, 0.02). Its biases and the
// offsets beta start at 0 (arXiv 2209.10655, lit_gpt/mega.py).
var megaNormal = normal(0.02)

func (i initializer) embedding() graph.Init {
	if i.scheme == InitLlama {
		return normal(math.Sqrt(2 / (5 * float64(i.dModel))))
	}
	return normal(0.02)
}

// uniform is PyTorch's default for a layer that sums over `in` inputs: U(-1/sqrt(in), 1/sqrt(in)).
func uniform(in int) graph.Init { return uniformBound(1 / math.Sqrt(float64(in))) }

func uniformBound(bound float64) graph.Init {
	return func(r *rand.Rand, w []float32) {
		for i := range w {
			w[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
}

func normal(std float64) graph.Init {
	return func(r *rand.Rand, w []float32) {
		for i := range w {
			w[i] = float32(r.NormFloat64() * std)
		}
	}
}

func ones(_ *rand.Rand, w []float32) {
	for i := range w {
		w[i] = 1
	}
}

func zeros(_ *rand.Rand, w []float32) { clear(w) }

// timeStepBias makes softplus(bias) log-uniform in [0.001, 0.1], at least 1e-4.
func timeStepBias(r *rand.Rand, w []float32) {
	low, high := math.Log(0.001), math.Log(0.1)
	for i := range w {
		dt := max(math.Exp(low+(high-low)*r.Float64()), 1e-4)
		w[i] = float32(dt + math.Log(-math.Expm1(-dt)))
	}
}

// stateDecay initializes A_log [C N] to log(1..N), the same for all channels.
func stateDecay(n int) graph.Init {
	return func(_ *rand.Rand, w []float32) {
		for i := range w {
			w[i] = float32(math.Log(float64(i%n + 1)))
		}
	}
}
