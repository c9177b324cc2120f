package train

import (
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
	g, err := generate.New(s.dev, s.engine.Memory(), s.engine.Model(), generate.Config{Positions: len(prompt) + c.Tokens, Mixed: s.engine.Mixed()})
	if err != nil {
		return "", err
	}
	text := []byte(c.Prompt)
	err = g.Continue(prompt, c.Tokens, tok.EOS(), sampler, func(token int32) bool {
		text = tok.Decode(text, []int32{token})
		return true
	})
	return string(text), err
}
