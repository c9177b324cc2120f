// Package sentencepiece reads tokenizer.model files, ModelProto of sentencepiece_model.proto
// (github.com/google/sentencepiece): the fields that encoding a text depends on.
package sentencepiece

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Model is a ModelProto, including the fields of TrainerSpec and NormalizerSpec.
type Model struct {
	Pieces []Piece // by id

	Type             Type
	WhitespaceSuffix bool // treat_whitespace_as_suffix: the dummy space comes after the text
	ByteFallback     bool
	EOS              int // id of the end-of-text piece; -1 for none

	CharsMap     []byte // precompiled_charsmap; if empty, characters are unchanged
	DummyPrefix  bool   // add_dummy_prefix
	RemoveSpaces bool   // remove_extra_whitespaces
	EscapeSpaces bool   // escape_whitespaces: spaces become U+2581
}

// Piece is one entry of the vocabulary.
type Piece struct {
	Text  string
	Score float32 // log probability of a unigram model; of BPE, minus the rank of the merge
	Kind  Kind
}

// Type is the algorithm that splits a text into pieces.
type Type int

const (
	Unigram Type = 1
	BPE     Type = 2
	Word    Type = 3
	Char    Type = 4
)

func (t Type) String() string {
	if name, ok := map[Type]string{Unigram: "unigram", BPE: "bpe", Word: "word", Char: "char"}[t]; ok {
		return name
	}
	return fmt.Sprint(int(t))
}

// Kind is the purpose of a piece.
type Kind int32

const (
	Normal      Kind = 1
	Unknown     Kind = 2
	Control     Kind = 3
	UserDefined Kind = 4
	Unused      Kind = 5
	Byte        Kind = 6
)

// Numbers of the fields that are read.
const (
	fieldPieces     = 1
	fieldTrainer    = 2
	fieldNormalizer = 3

	pieceText  = 1
	pieceScore = 2
	pieceKind  = 3

	trainerType         = 3
	trainerSpaceSuffix  = 24
	trainerByteFallback = 35
	trainerEOS          = 42

	normalizerCharsMap     = 2
	normalizerDummyPrefix  = 3
	normalizerRemoveSpaces = 4
	normalizerEscapeSpaces = 5
)

// Parse reads a file's content. Missing fields have the format's defaults.
func Parse(raw []byte) (*Model, error) {
	m := &Model{Type: Unigram, EOS: 2, DummyPrefix: true, RemoveSpaces: true, EscapeSpaces: true}
	err := eachField(raw, func(field protowire.Number, _ uint64, part []byte) error {
		switch field {
		case fieldPieces:
			m.Pieces = append(m.Pieces, Piece{Kind: Normal})
			return m.Pieces[len(m.Pieces)-1].parse(part)
		case fieldTrainer:
			return eachField(part, m.trainer)
		case fieldNormalizer:
			return eachField(part, m.normalizer)
		}
		return nil
	})
	if err == nil && len(m.Pieces) == 0 {
		err = errors.New("it has no pieces")
	}
	if err != nil {
		return nil, fmt.Errorf("is not a SentencePiece model: %w", err)
	}
	return m, nil
}

func (p *Piece) parse(raw []byte) error {
	return eachField(raw, func(field protowire.Number, n uint64, text []byte) error {
		switch field {
		case pieceText:
			p.Text = string(text)
		case pieceScore:
			p.Score = math.Float32frombits(uint32(n))
		case pieceKind:
			p.Kind = Kind(n)
		}
		return nil
	})
}

func (m *Model) trainer(field protowire.Number, n uint64, _ []byte) error {
	switch field {
	case trainerType:
		m.Type = Type(n)
	case trainerSpaceSuffix:
		m.WhitespaceSuffix = n != 0
	case trainerByteFallback:
		m.ByteFallback = n != 0
	case trainerEOS:
		m.EOS = int(int32(n))
	}
	return nil
}

func (m *Model) normalizer(field protowire.Number, n uint64, part []byte) error {
	switch field {
	case normalizerCharsMap:
		m.CharsMap = part
	case normalizerDummyPrefix:
		m.DummyPrefix = n != 0
	case normalizerRemoveSpaces:
		m.RemoveSpaces = n != 0
	case normalizerEscapeSpaces:
		m.EscapeSpaces = n != 0
	}
	return nil
}

// eachField calls f for the fields of a message: n is the value of a number, part of anything
// longer.
func eachField(raw []byte, f func(field protowire.Number, n uint64, part []byte) error) error {
	for len(raw) > 0 {
		field, kind, size := protowire.ConsumeTag(raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		var n uint64
		var part []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(raw)
		case protowire.Fixed32Type:
			var v uint32
			v, size = protowire.ConsumeFixed32(raw)
			n = uint64(v)
		case protowire.BytesType:
			part, size = protowire.ConsumeBytes(raw)
		default:
			size = protowire.ConsumeFieldValue(field, kind, raw)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		if err := f(field, n, part); err != nil {
			return err
		}
	}
	return nil
}

// Marshal writes what Parse reads.
func (m *Model) Marshal() []byte {
	var out []byte
	for _, p := range m.Pieces {
		piece := protowire.AppendString(protowire.AppendTag(nil, pieceText, protowire.BytesType), p.Text)
		piece = protowire.AppendFixed32(protowire.AppendTag(piece, pieceScore, protowire.Fixed32Type), math.Float32bits(p.Score))
		out = appendPart(out, fieldPieces, appendNumber(piece, pieceKind, int(p.Kind)))
	}
	trainer := appendNumber(nil, trainerType, int(m.Type))
	trainer = appendBool(trainer, trainerSpaceSuffix, m.WhitespaceSuffix)
	trainer = appendBool(trainer, trainerByteFallback, m.ByteFallback)
	out = appendPart(out, fieldTrainer, appendNumber(trainer, trainerEOS, m.EOS))
	normalizer := appendPart(nil, normalizerCharsMap, m.CharsMap)
	normalizer = appendBool(normalizer, normalizerDummyPrefix, m.DummyPrefix)
	normalizer = appendBool(normalizer, normalizerRemoveSpaces, m.RemoveSpaces)
	return appendPart(out, fieldNormalizer, appendBool(normalizer, normalizerEscapeSpaces, m.EscapeSpaces))
}

func appendPart(dst []byte, field protowire.Number, part []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), part)
}

func appendNumber(dst []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), uint64(n))
}

func appendBool(dst []byte, field protowire.Number, b bool) []byte {
	return appendNumber(dst, field, int(protowire.EncodeBool(b)))
}
