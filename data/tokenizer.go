package data

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Tokenizer turns text into token ids and back. It is safe for use by several goroutines at once.
type Tokenizer interface {
	// Name is the spec that NewTokenizer makes it from.
	Name() string

	// VocabSize is the number of ids: every id is in [0, VocabSize). A model's vocabulary must be at least as
	// large; recipes round it up to a multiple of 64 so that matrix tiles are full (257 becomes 320).
	VocabSize() int

	// EOS is the id of the end-of-text token, which follows every document.
	EOS() int32

	// Encode appends the ids of text to dst. It never yields EOS: text that spells a special token's name is
	// ordinary text.
	Encode(dst []int32, text []byte) []int32

	// Decode appends the text of ids to dst. Special tokens are left out.
	Decode(dst []byte, ids []int32) []byte

	// TokenBytes is the number of bytes of text that id stands for, 0 for a special token.
	TokenBytes(id int32) int

	// Fingerprint changes whenever some text would get other ids.
	Fingerprint() string

	// ExportFiles are the files, by name, with which the Hugging Face libraries load the same tokenizer.
	ExportFiles() map[string][]byte
}

// tokenizers holds the constructors of the embedded tokenizers by name.
var tokenizers = map[string]func() Tokenizer{
	"bytes": func() Tokenizer { return byteTokenizer{} },
}

// NewTokenizer makes the tokenizer that spec names: "bytes", whose ids 0..255 are the bytes and 256 the end of
// text.
func NewTokenizer(spec string) (Tokenizer, error) {
	if make, ok := tokenizers[spec]; ok {
		return make(), nil
	}
	names := make([]string, 0, len(tokenizers))
	for name := range tokenizers {
		names = append(names, name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("no tokenizer %q: use one of: %s", spec, strings.Join(names, ", "))
}

// TextBytes is the number of bytes of text that ids stand for.
func TextBytes(tok Tokenizer, ids []int32) int64 {
	var n int64
	for _, id := range ids {
		n += int64(tok.TokenBytes(id))
	}
	return n
}

// BitsPerByte is the total cross-entropy of the targets in bits, over the bytes of text they stand for:
// nats / (ln 2 * bytes). The nats of end-of-text targets count, their bytes are 0, so the figure covers where
// documents end as well, and can be compared between tokenizers.
func BitsPerByte(nats float64, bytes int64) float64 {
	return nats / (math.Ln2 * float64(bytes))
}
