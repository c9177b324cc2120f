package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
)

// sampleMemory returns memory with all parameters. If this process has only its pieces of them,
// they come from the final checkpoint.
func (s *session) sampleMemory() (graph.Memory, error) {
	e := s.engine
	if !e.sharded(graph.Params) {
		return e.mem, nil
	}
	c, err := checkpoint.Describe(s.saved)
	if err != nil {
		return nil, err
	}
	return modelMemory(s.dev, e.model, e.Precision(), parametersOf(c))
}

// sample continues the recipe's prompt with the current model. Everything is saved by then, so a
// run that is told to stop loses only the sample.
func (s *session) sample(ctx context.Context) (string, error) {
	c, tok := s.recipe.Sample, s.train.Tokenizer()
	prompt, err := tok.Encode([]int32{tok.EOS()}, []byte(c.Prompt))
	if err != nil {
		return "", fmt.Errorf("sample.prompt: %w", err)
	}
	sampler, err := generate.NewSampler(generate.SamplerConfig{
		Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, Seed: c.Seed, Vocab: tok.VocabSize()})
	if err != nil {
		return "", err
	}
	mem, err := s.sampleMemory()
	if err != nil {
		return "", err
	}
	g, err := generate.NewBatch(s.dev, mem, s.engine.Model(), generate.Config{Positions: len(prompt) + c.Tokens, Precision: s.engine.Precision()})
	if err != nil {
		return "", err
	}
	defer g.Close()
	text := []byte(c.Prompt)
	stream := generate.NewStream(tok.Decode, prompt, nil)
	err = g.Run(ctx, []generate.Request{{Prompt: prompt, Tokens: c.Tokens, EOS: tok.EOS(), Sampler: sampler,
		Emit: func(token int32, _ []float32) bool {
			more, _ := stream.Push(token)
			text = append(text, more...)
			return true
		}}})
	if errors.Is(err, context.Canceled) {
		err = s.stopped(s.step)
	}
	return string(append(text, stream.Rest()...)), err
}
