package train

import (
	"context"

	"github.com/sambatrain/sambatrain/internal/generate"
)

// sample continues the recipe's prompt with the model as it stands.
func (s *session) sample() (string, error) {
	c, tok := s.recipe.Sample, s.train.Tokenizer()
	prompt := tok.Encode([]int32{tok.EOS()}, []byte(c.Prompt))
	sampler, err := generate.NewSampler(generate.SamplerConfig{
		Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, Seed: c.Seed, Vocab: tok.VocabSize()})
	if err != nil {
		return "", err
	}
	g, err := generate.NewBatch(s.dev, s.engine.Memory(), s.engine.Model(), generate.Config{Positions: len(prompt) + c.Tokens, Mixed: s.engine.Mixed()})
	if err != nil {
		return "", err
	}
	defer g.Close()
	text := []byte(c.Prompt)
	stream := generate.NewStream(tok.Decode, prompt, nil)
	err = g.Run(context.Background(), []generate.Request{{Prompt: prompt, Tokens: c.Tokens, EOS: tok.EOS(), Sampler: sampler,
		Emit: func(token int32, _ []float32) bool {
			more, _ := stream.Push(token)
			text = append(text, more...)
			return true
		}}})
	return string(append(text, stream.Rest()...)), err
}
