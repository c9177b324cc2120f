package convert

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint/gguf"
	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// ggufSentencePiece describes a tokenizer.model with SentencePiece's BPE. llama.cpp's token types
// are SentencePiece's piece types.
func ggufSentencePiece(s *Source, raw []byte) ([]gguf.Pair, error) {
	m, err := sentencepiece.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.model: %w", err)
	}
	switch {
	case m.Type != sentencepiece.BPE:
		return nil, fmt.Errorf("a tokenizer.model of type %v can't be written; only bpe can", m.Type)
	case len(m.CharsMap) > 0 || m.RemoveSpaces:
		return nil, errors.New("it normalizes text (normalizer_spec), which llama.cpp does not; only models trained with --normalization_rule_name=identity --remove_extra_whitespaces=false can be written")
	case slices.ContainsFunc(m.Pieces, func(p sentencepiece.Piece) bool { return p.Kind == sentencepiece.UserDefined }):
		return nil, errors.New("it has user-defined symbols, at which llama.cpp splits a text before it adds the dummy space")
	case m.WhitespaceSuffix:
		return nil, errors.New("its spaces follow words (treat_whitespace_as_suffix), which llama.cpp does not support")
	}
	unknown := uint32(0)
	var texts []string
	var scores []float32
	var types []int32
	for i, p := range m.Pieces {
		texts, scores, types = append(texts, p.Text), append(scores, p.Score), append(types, int32(p.Kind))
		if p.Kind == sentencepiece.Unknown {
			unknown = uint32(i)
		}
	}
	for i := len(texts); i < s.Model.VocabSize; i++ {
		texts, scores, types = append(texts, padText(i)), append(scores, -1e4), append(types, tokenUnused)
	}
	eos := uint32(s.Tokenizer.EOS())
	return []gguf.Pair{
		{Key: "tokenizer.ggml.model", Value: "llama"}, {Key: "tokenizer.ggml.pre", Value: "default"},
		{Key: "tokenizer.ggml.tokens", Value: texts}, {Key: "tokenizer.ggml.scores", Value: scores},
		{Key: "tokenizer.ggml.token_type", Value: types}, {Key: "tokenizer.ggml.unknown_token_id", Value: unknown},
		{Key: "tokenizer.ggml.bos_token_id", Value: eos}, {Key: "tokenizer.ggml.eos_token_id", Value: eos},
		{Key: "tokenizer.ggml.add_bos_token", Value: true}, {Key: "tokenizer.ggml.add_eos_token", Value: false},
		{Key: "tokenizer.ggml.add_space_prefix", Value: m.DummyPrefix},
	}, nil
}
