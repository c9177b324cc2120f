package layers

import (
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/argmax"
	"github.com/sambatrain/sambatrain/graph/ops/embedding"
	"github.com/sambatrain/sambatrain/graph/ops/last_token"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/linear_cross_entropy"
	"github.com/sambatrain/sambatrain/graph/ops/rms_norm"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
)

// Hidden runs tokens [B T] through the stack and returns x [B T D], after the last norm.
func (m *Model) Hidden(b *graph.Builder, tokens graph.Tensor) graph.Tensor {
	return m.hidden(b, embedding.Apply(b, tokens, m.embeddings(b)), false)
}

// hidden runs the tokens' embeddings x [B T D] through the stack. With last it returns only the results of each
// row's last token [B 1 D].
func (m *Model) hidden(b *graph.Builder, x graph.Tensor, last bool) graph.Tensor {
	stack, err := m.Sublayers()
	if err != nil {
		return b.Fail(err)
	}
	last = last && x.Valid() && x.Shape()[1] > 1
	tail := LastMixing(stack) + 1
	for i, s := range stack {
		if last && i == tail {
			x = last_token.Apply(b, x)
		}
		b.Block(func() {
			b.Scope(fmt.Sprintf("model.layers.%d", i), func() { x = m.sublayer(b, s.Mixer, x) })
		})
	}
	if last && tail == len(stack) {
		x = last_token.Apply(b, x)
	}
	return rms_norm.Apply(b, x, b.Param("model.norm_f.weight", ones, m.DModel), m.NormEps)
}

// LastMixing returns the index of the last sublayer in which a token's output depends on other
// tokens, or -1. For the logits of the last token, the sublayers after it need not compute the
// other tokens.
func LastMixing(stack []Sublayer) int {
	for i, s := range slices.Backward(stack) {
		if _, alone := s.Mixer.(SwiGLU); !alone {
			return i
		}
	}
	return -1
}

func (m *Model) sublayer(b *graph.Builder, mixer Mixer, x graph.Tensor) graph.Tensor {
	if replaces, ok := mixer.(StreamMixer); ok {
		b.Scope("mixer", func() { x = replaces.Forward(b, x) })
		return x
	}
	h := rms_norm.Apply(b, x, b.Param("norm.weight", ones, m.DModel), m.NormEps)
	b.Scope("mixer", func() { h = mixer.Forward(b, h) })
	return b.Add(x, h)
}

// Loss is the mean cross-entropy, in nats, of the next tokens targets [B T]; its output 1 is the
// cross-entropy of each token [B T]. Targets below 0 don't count.
func (m *Model) Loss(b *graph.Builder, tokens, targets graph.Tensor) graph.Tensor {
	return linear_cross_entropy.Apply(b, m.Hidden(b, tokens), m.head(b), targets)
}

// PartLoss is Loss for one of several parts of a batch. count [2] holds the number of targets that
// count in all parts, and the number of parts. The mean of the parts' losses is the loss of the
// whole batch.
func (m *Model) PartLoss(b *graph.Builder, tokens, targets, count graph.Tensor) graph.Tensor {
	return linear_cross_entropy.ApplyPart(b, m.Hidden(b, tokens), m.head(b), targets, count)
}

// EvalLoss is Loss without the outputs that a gradient needs.
func (m *Model) EvalLoss(b *graph.Builder, tokens, targets graph.Tensor) graph.Tensor {
	return linear_cross_entropy.ApplyEval(b, m.Hidden(b, tokens), m.head(b), targets)
}

// Logits returns the logits of each token's successor [B T V].
func (m *Model) Logits(b *graph.Builder, tokens graph.Tensor) graph.Tensor {
	return linear.Apply(b, m.Hidden(b, tokens), m.head(b))
}

// LastLogits returns the logits of the successor of each row's last token [B 1 V].
func (m *Model) LastLogits(b *graph.Builder, tokens graph.Tensor) graph.Tensor {
	return linear.ApplyPrecise(b, m.hidden(b, embedding.Apply(b, tokens, m.embeddings(b)), true), m.head(b))
}

// Draw reads one token of each row, tokens [B 1], and writes the next one to the state next [B 1]:
// one of the first n of the vocabulary, drawn according to settings [B sample.Words], or the most
// likely one if settings is the zero Tensor. A token below 0 stands for the one in next.
func (m *Model) Draw(b *graph.Builder, tokens, next, settings graph.Tensor, n int) {
	x := embedding.ApplyNext(b, tokens, next, m.embeddings(b))
	scores := linear.ApplyPrecise(b, m.hidden(b, x, false), m.head(b))
	if settings.Valid() {
		sample.Apply(b, scores, settings, next, n)
	} else {
		argmax.Apply(b, scores, next, n)
	}
}

// Depth is the number of sublayers.
func (m *Model) Depth() int { return len(m.Layers.Pattern) * m.Layers.Repeat }

// CacheGrows reports whether the state that a continuation needs grows with the length of the
// sequence: full attention keeps every key and value.
func (m *Model) CacheGrows() bool {
	return slices.ContainsFunc(m.Layers.Pattern, func(p Place) bool { return p.Mixer == "attn" })
}

func (m *Model) embeddings(b *graph.Builder) graph.Tensor {
	return b.Param("model.embeddings.weight", m.initializer().embedding(), m.VocabSize, m.DModel)
}

func (m *Model) head(b *graph.Builder) graph.Tensor {
	if m.TieEmbeddings {
		return m.embeddings(b)
	}
	return b.Param("lm_head.weight", m.initializer().linear(m.DModel), m.VocabSize, m.DModel)
}

// The largest models for which Float32Sublayers isn't 0.
const (
	float32Depth = 12
	float32Width = 256
)

// Float32Sublayers returns the number of sublayers, starting from the first, that mixed precision
// leaves in float32 unless a recipe says otherwise: half of them, rounded down, in a model with at
// most 12 sublayers and a width of at most 256; none in a larger one.
//
// Rounding errors of the first sublayers propagate to everything that follows, and so to every
// gradient: in models this shallow the first half causes most of the gradients' error. In deeper
// models its share is smaller, and in wider ones float32 takes too long (docs/adr/0011).
func (m *Model) Float32Sublayers() int {
	n := m.Depth()
	if n > float32Depth || m.DModel > float32Width {
		return 0
	}
	return n / 2
}
