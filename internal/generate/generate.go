// Package generate continues a text token by token. It carries the recurrent
// state and the attention window from call to call, so that a token costs the
// same however long the text is.
package generate

import (
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

const (
	inputTokens  = "tokens"
	resultLogits = "logits"
)

// Plan is one call of a model that carries its state: b texts, t tokens each.
// positions bounds the length of a text where the model has full attention.
func Plan(m *layers.Model, b, t, positions int, mixed bool) (*graph.Plan, error) {
	g := layers.NewBuilder(mixed)
	g.SetCarry(graph.Carry{Positions: positions})
	g.Result(resultLogits, m.Logits(g, g.Input(inputTokens, graph.Int32, b, t)))
	return g.Compile()
}

// Generator continues one text.
type Generator struct {
	program   graph.Program
	position  int
	positions int
	input     [1]int32
	at        [1]int32
	hasAt     bool
	logits    []float32
}

// Config says what a generator is made for.
type Config struct {
	// Positions bounds the text's length; only full attention takes memory for it.
	Positions int
	// Mixed computes matrix products in bfloat16.
	Mixed bool
}

// New makes a generator over parameters in mem.
func New(dev graph.Device, mem graph.Memory, m *layers.Model, c Config) (*Generator, error) {
	plan, err := Plan(m, 1, 1, c.Positions, c.Mixed)
	if err != nil {
		return nil, err
	}
	p, err := dev.Load(plan, mem)
	if err != nil {
		return nil, err
	}
	_, hasAt := plan.Inputs[graph.PositionInput]
	return &Generator{program: p, positions: c.Positions, hasAt: hasAt, logits: make([]float32, m.VocabSize)}, nil
}

// Feed takes the text's next token and returns the scores of its successors [V].
// The slice is good until the next call.
func (g *Generator) Feed(token int32) ([]float32, error) {
	if g.position >= g.positions {
		return nil, fmt.Errorf("generate: the text is longer than the %d tokens that there is room for", g.positions)
	}
	g.input[0], g.at[0] = token, int32(g.position)
	if err := g.program.WriteInts(inputTokens, g.input[:]); err != nil {
		return nil, err
	}
	if g.hasAt {
		if err := g.program.WriteInts(graph.PositionInput, g.at[:]); err != nil {
			return nil, err
		}
	}
	if err := g.program.Run(); err != nil {
		return nil, err
	}
	g.position++
	return g.logits, g.program.Read(resultLogits, g.logits)
}

// Continue feeds prompt and then samples up to n tokens, each handed to emit as it
// comes. It ends at eos, which is not handed on, or when emit returns false.
func (g *Generator) Continue(prompt []int32, n int, eos int32, s *Sampler, emit func(token int32) bool) error {
	if len(prompt) == 0 {
		return errors.New("generate: the prompt is empty; give at least one token")
	}
	var logits []float32
	for _, t := range prompt {
		var err error
		if logits, err = g.Feed(t); err != nil {
			return err
		}
	}
	for i := range n {
		token := s.Next(logits)
		if token == eos || !emit(token) {
			return nil
		}
		if i == n-1 {
			return nil
		}
		var err error
		if logits, err = g.Feed(token); err != nil {
			return err
		}
	}
	return nil
}
