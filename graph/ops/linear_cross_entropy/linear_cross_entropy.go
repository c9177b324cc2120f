// Package linear_cross_entropy is a language model's head and its loss in one op, so that the
// logits of a batch are never in memory at once.
package linear_cross_entropy

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply is the mean negative log-likelihood, a scalar, of targets [B T] (int32) under softmax(x
// w^T), for x [B T D] and w [V D]. A target below 0 is ignored and not counted; if no target
// counts, the loss is 0. Output 1, nll [B T], is each token's term before the mean, 0 where
// ignored.
//
// The op computes its gradients along with the loss, and only those of the loss itself: a function
// of the loss can't be differentiated. If gradients are not needed, ApplyEval does a third of the
// work.
func Apply(b *graph.Builder, x, w, targets graph.Tensor) graph.Tensor {
	return b.Apply(Spec(), x, w, targets)
}

// ApplyPart is Apply for one of the parts into which a batch is divided: count [2] (int32) is the
// number of targets that count in all parts, and the number of parts. The mean of the parts' losses
// is then the mean over all targets, however many of them each part has.
func ApplyPart(b *graph.Builder, x, w, targets, count graph.Tensor) graph.Tensor {
	return b.Apply(PartSpec(), x, w, targets, count)
}

// ApplyEval is Apply without gradients.
func ApplyEval(b *graph.Builder, x, w, targets graph.Tensor) graph.Tensor {
	return b.Apply(EvalSpec(), x, w, targets)
}

// Spec is, with p = softmax(x w^T) and n targets that count,
//
//	nll    = -log p[target]
//	loss   = sum of nll / n
//	dlogit = (p - onehot(target)) / n, 0 where ignored
//	dx     = dlogit w
//	dw     = dlogit^T x
func Spec() *graph.Spec {
	return trainSpec("linear_cross_entropy", "x:mm[B T D], w:mm[V D], targets:i32[B T]")
}

// PartSpec is Spec with n = count[0] / count[1].
func PartSpec() *graph.Spec {
	return trainSpec("linear_cross_entropy_part", "x:mm[B T D], w:mm[V D], targets:i32[B T], count:i32[2]")
}

// partInput is the index of PartSpec's count.
const partInput = 3

func trainSpec(name, inputs string) *graph.Spec {
	return &graph.Spec{
		Name:      name,
		Signature: inputs + " -> loss:f32[], nll:f32[B T], dx[B T D], dw:f32[V D]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			x, w, dx, dw := in[0], in[1], out[2], out[3]
			reference(in, out, func(i int, dlogits []float64) {
				for v, g := range dlogits {
					for j := range x.Row(i) {
						dx.Row(i)[j] += g * w.Row(v)[j]
						dw.Row(v)[j] += g * x.Row(i)[j]
					}
				}
			})
		},
		CPU:       train,
		CUDA:      &graph.CUDA{Source: source, Launches: trainCUDA, Workspace: workspaceCUDA},
		Workspace: trainWorkspace,
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			d := make([]graph.Tensor, len(g.In))
			if !g.IsSeed() {
				d[0] = g.Builder().Fail(errNotLoss)
				return d
			}
			d[0], d[1] = g.Out[2], g.Out[3]
			return d
		},
		Cost: func(d graph.Dims) graph.Cost {
			n, v, w := float64(d["B"]*d["T"]), float64(d["V"]), float64(d["D"])
			return graph.Cost{FLOPs: 3*2*n*v*w + (5+graph.ExpFLOPs)*n*v, Products: 3 * 2 * n * v * w, Bytes: 4 * (2*n*w + 2*v*w + 2*n)}
		},
	}
}

var errNotLoss = errors.New("linear_cross_entropy: only the gradient of the loss itself is known, not of something computed from it; scale gradients in the optimizer instead")

// EvalSpec computes only Spec's loss and nll.
func EvalSpec() *graph.Spec {
	return &graph.Spec{
		Name:      "linear_cross_entropy_eval",
		Signature: "x:mm[B T D], w:mm[V D], targets:i32[B T] -> loss:f32[], nll:f32[B T]",
		Reference: func(_ graph.Dims, in, out []graph.Array) { reference(in, out, nil) },
		CPU:       eval,
		CUDA:      &graph.CUDA{Source: source, Launches: evalCUDA, Workspace: workspaceCUDA},
		Workspace: evalWorkspace,
		Cost: func(d graph.Dims) graph.Cost {
			n, v, w := float64(d["B"]*d["T"]), float64(d["V"]), float64(d["D"])
			return graph.Cost{FLOPs: 2*n*v*w + (3+graph.ExpFLOPs)*n*v, Products: 2 * n * v * w, Bytes: 4 * (n*w + v*w + 2*n)}
		},
	}
}

// divisor is n, or 1 if no target counts.
func divisor(total, parts int) float64 {
	if total == 0 {
		return 1
	}
	return float64(total) / float64(parts)
}

// reference computes loss and nll, and passes the gradient of each counted token's logits to
// backward, if it is not nil.
func reference(in, out []graph.Array, backward func(i int, dlogits []float64)) {
	x, w, targets, loss, nll := in[0], in[1], in[2], out[0], out[1]
	total, parts := 0, 1
	for _, target := range targets.Data {
		if target >= 0 {
			total++
		}
	}
	if len(in) > partInput {
		total, parts = int(in[partInput].Data[0]), int(in[partInput].Data[1])
	}
	n := divisor(total, parts)
	p := make([]float64, w.Shape.Rows())
	for i, target := range targets.Data {
		checkTarget(i, int(target), len(p))
		if target < 0 {
			continue
		}
		greatest := math.Inf(-1)
		for v := range p {
			p[v] = 0
			for j, a := range x.Row(i) {
				p[v] += a * w.Row(v)[j]
			}
			greatest = math.Max(greatest, p[v])
		}
		logit, sum := p[int(target)], 0.0
		for v, l := range p {
			p[v] = math.Exp(l - greatest)
			sum += p[v]
		}
		nll.Data[i] = math.Log(sum) + greatest - logit
		loss.Data[0] += nll.Data[i] / n
		if backward == nil {
			continue
		}
		for v := range p {
			p[v] /= sum * n
		}
		p[int(target)] -= 1 / n
		backward(i, p)
	}
}

func checkTarget(i, target, vocab int) {
	if target >= vocab {
		panic(fmt.Sprintf("linear_cross_entropy: target %d of the batch is id %d, outside the vocabulary of %d", i, target, vocab))
	}
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	targets := func(low, high int) map[string]graph.Fill {
		return map[string]graph.Fill{"targets": graph.Integers(low, high)}
	}
	confident := targets(0, 9)
	confident["w"] = graph.Uniform(-8, 8)
	shapes := []graph.Case{
		{Name: "small", Dims: graph.Dims{"B": 2, "T": 5, "V": 16, "D": 32}, Fill: targets(0, 16)},
		{Name: "odd, some ignored", Dims: graph.Dims{"B": 3, "T": 7, "V": 19, "D": 13}, Fill: targets(-9, 19)},
		{Name: "one token", Dims: graph.Dims{"B": 1, "T": 1, "V": 33, "D": 70}, Fill: targets(0, 33)},
		{Name: "one id", Dims: graph.Dims{"B": 1, "T": 3, "V": 1, "D": 2}, Fill: targets(0, 1)},
		{Name: "all ignored", Dims: graph.Dims{"B": 1, "T": 4, "V": 8, "D": 8}, Fill: targets(-2, 0)},
		{Name: "confident", Dims: graph.Dims{"B": 1, "T": 6, "V": 9, "D": 5}, Fill: confident},
		{Name: "first id", Dims: graph.Dims{"B": 1, "T": 2, "V": 21, "D": 4}, Fill: targets(0, 1)},
		{Name: "last id", Dims: graph.Dims{"B": 1, "T": 2, "V": 21, "D": 4}, Fill: targets(20, 21)},
		{Name: "large vocabulary", Dims: graph.Dims{"B": 1, "T": 3, "V": 2*expBlock + 3, "D": 6}, Fill: targets(0, 2*expBlock+3)},
		{Name: "larger vocabulary", Dims: graph.Dims{"B": 1, "T": 2, "V": 9 * expBlock, "D": 3}, Fill: targets(0, 9*expBlock)},
		{Name: "three chunks", Dims: graph.Dims{"B": 2, "T": maxChunkRows + 5, "V": 7, "D": 3}, Fill: targets(-1, 7)},
		{Name: "two chunks of a GPU", Dims: graph.Dims{"B": 1, "T": maxChunkRowsCUDA + 3, "V": 5, "D": 3}, Fill: targets(-1, 5)},
		{Name: "421m", Dims: graph.Dims{"B": 1, "T": 4096, "V": 32000, "D": 1536}, Fill: targets(0, 32000), Bench: true},
	}
	var cases []graph.Case
	for _, spec := range []*graph.Spec{Spec(), EvalSpec()} {
		for _, c := range shapes {
			c.Spec = spec
			cases = append(cases, c)
		}
	}
	of := func(low, total, parts int) map[string]graph.Fill {
		fill := targets(low, 19)
		fill["count"] = func(_ *rand.Rand, a graph.Array) { a.Data[0], a.Data[1] = float64(total), float64(parts) }
		return fill
	}
	odd := graph.Dims{"B": 3, "T": 7, "V": 19, "D": 13}
	return append(cases,
		graph.Case{Name: "all of one part", Spec: PartSpec(), Dims: odd, Fill: of(0, 21, 1)},
		graph.Case{Name: "some of three parts", Spec: PartSpec(), Dims: odd, Fill: of(-9, 40, 3)},
		graph.Case{Name: "more parts than targets", Spec: PartSpec(), Dims: odd, Fill: of(-19, 25, 60)},
		graph.Case{Name: "none of a part", Spec: PartSpec(), Dims: odd, Fill: map[string]graph.Fill{"targets": graph.Integers(-2, 0), "count": graph.Integers(3, 9)}},
		graph.Case{Name: "none of any part", Spec: PartSpec(), Dims: odd, Fill: map[string]graph.Fill{"targets": graph.Integers(-2, 0), "count": graph.Integers(0, 1)}},
	)
}
