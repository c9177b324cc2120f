package convert

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sambatrain/sambatrain/checkpoint/gguf"
)

// The fields of a tokenizer.model that are read
// (github.com/google/sentencepiece, sentencepiece_model.proto).
const (
	spPieces     = 1
	spNormalizer = 3

	spPieceText  = 1
	spPieceScore = 2
	spPieceType  = 3

	spCharsMap    = 2
	spDummyPrefix = 3
	spExtraSpaces = 4
)

// tokenUnknown is llama.cpp's, as all of SentencePiece's types of pieces are.
const tokenUnknown = 2

// sentencePiece is what llama.cpp needs of a tokenizer.model.
type sentencePiece struct {
	texts  []string
	scores []float32
	types  []int32
	// What the normalizer does to a text.
	maps, dummyPrefix, removeSpaces bool
}

// ggufSentencePiece describes a tokenizer.model of SentencePiece's BPE.
func ggufSentencePiece(s *Source, raw []byte) ([]gguf.Pair, error) {
	m := sentencePiece{dummyPrefix: true, removeSpaces: true} // as the format has them
	if err := m.parse(raw); err != nil {
		return nil, fmt.Errorf("tokenizer.model: %w", err)
	}
	if m.maps || m.removeSpaces {
		return nil, errors.New("it normalizes text (normalizer_spec), which llama.cpp does not; only models trained with --normalization_rule_name=identity --remove_extra_whitespaces=false can be written")
	}
	unknown := uint32(0)
	for i, t := range m.types {
		if t == tokenUnknown {
			unknown = uint32(i)
		}
	}
	for i := len(m.texts); i < s.Model.VocabSize; i++ {
		m.texts, m.scores, m.types = append(m.texts, padText(i)), append(m.scores, -1e4), append(m.types, tokenUnused)
	}
	eos := uint32(s.Tokenizer.EOS())
	return []gguf.Pair{
		{Key: "tokenizer.ggml.model", Value: "llama"}, {Key: "tokenizer.ggml.pre", Value: "default"},
		{Key: "tokenizer.ggml.tokens", Value: m.texts}, {Key: "tokenizer.ggml.scores", Value: m.scores},
		{Key: "tokenizer.ggml.token_type", Value: m.types}, {Key: "tokenizer.ggml.unknown_token_id", Value: unknown},
		{Key: "tokenizer.ggml.bos_token_id", Value: eos}, {Key: "tokenizer.ggml.eos_token_id", Value: eos},
		{Key: "tokenizer.ggml.add_bos_token", Value: true}, {Key: "tokenizer.ggml.add_eos_token", Value: false},
		{Key: "tokenizer.ggml.add_space_prefix", Value: m.dummyPrefix},
	}, nil
}

func (m *sentencePiece) parse(raw []byte) error {
	return fields(raw, func(n protowire.Number, value []byte, _ uint64) error {
		switch n {
		case spPieces:
			m.texts, m.scores, m.types = append(m.texts, ""), append(m.scores, 0), append(m.types, tokenNormal)
			last := len(m.texts) - 1
			return fields(value, func(n protowire.Number, value []byte, number uint64) error {
				switch n {
				case spPieceText:
					m.texts[last] = string(value)
				case spPieceScore:
					m.scores[last] = math.Float32frombits(uint32(number))
				case spPieceType:
					m.types[last] = int32(number)
				}
				return nil
			})
		case spNormalizer:
			return fields(value, func(n protowire.Number, value []byte, number uint64) error {
				switch n {
				case spCharsMap:
					m.maps = len(value) > 0
				case spDummyPrefix:
					m.dummyPrefix = number != 0
				case spExtraSpaces:
					m.removeSpaces = number != 0
				}
				return nil
			})
		}
		return nil
	})
}

// fields calls visit for each field of a message, with its bytes or its number.
func fields(raw []byte, visit func(n protowire.Number, value []byte, number uint64) error) error {
	for len(raw) > 0 {
		n, kind, size := protowire.ConsumeTag(raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		var value []byte
		var number uint64
		switch kind {
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(raw)
		case protowire.Fixed32Type:
			var bits uint32
			bits, size = protowire.ConsumeFixed32(raw)
			number = uint64(bits)
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(raw)
		default:
			size = protowire.ConsumeFieldValue(n, kind, raw)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(n, value, number); err != nil {
			return err
		}
		raw = raw[size:]
	}
	return nil
}
