package data

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// spModel holds the fields of SentencePiece's ModelProto that matter here (sentencepiece_model.proto).
type spModel struct {
	pieces []spPiece

	// Of TrainerSpec and NormalizerSpec, with their defaults.
	modelType        int64
	whitespaceSuffix bool
	byteFallback     bool
	eos              int64
	charsMap         []byte
	dummyPrefix      bool
	collapseSpaces   bool
	escapeSpaces     bool
}

type spPiece struct {
	text  string
	score float32
	kind  int64
}

// Values of the proto's enumerations.
const (
	spUnigram = 1
	spBPE     = 2

	spNormal      = 1
	spUnknown     = 2
	spControl     = 3
	spUserDefined = 4
	spUnused      = 5
	spByte        = 6
)

// openSentencePiece reads a tokenizer.model.
func openSentencePiece(path string) (*bpe, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := newSentencePiece(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func newSentencePiece(raw []byte) (*bpe, error) {
	m, err := parseSentencePiece(raw)
	if err != nil {
		return nil, fmt.Errorf("is no SentencePiece model: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	t := &bpe{unknown: none, fuse: true, split: keepWhole, chars: map[rune]int32{}}
	ids := t.spPieces(m)
	n := normalizerSP{dummyPrefix: m.dummyPrefix, collapse: m.collapseSpaces, keep: &t.after}
	if len(m.charsMap) > 0 {
		if n.chars, err = parseCharsMap(m.charsMap); err != nil {
			return nil, fmt.Errorf("normalizer_spec.precompiled_charsmap: %w", err)
		}
	}
	t.normalize = n.append
	t.spMerges(m, ids)
	if !slices.ContainsFunc(m.pieces, func(p spPiece) bool { return crossesSpaces(p.text) }) {
		t.split = splitSpaceRuns
	}
	t.info = TokenizerInfo{VocabSize: len(m.pieces), EOS: int32(m.eos), Fingerprint: fingerprintOf(raw, int32(m.eos))}
	t.exports = map[string][]byte{
		"tokenizer.model": raw,
		tokenizerConfig: mustJSON(map[string]any{
			"tokenizer_class": "LlamaTokenizer", "eos_token": m.pieces[m.eos].text, "add_bos_token": false, "add_eos_token": false,
		}),
	}
	return t, nil
}

func (m spModel) check() error {
	switch {
	case m.modelType != spBPE:
		return fmt.Errorf("model_type %s is not supported: only bpe is", map[int64]string{spUnigram: "unigram", 3: "word", 4: "char"}[m.modelType])
	case m.whitespaceSuffix:
		return errors.New("treat_whitespace_as_suffix is not supported")
	case !m.escapeSpaces:
		return errors.New("escape_whitespaces false is not supported")
	case m.eos < 0 || m.eos >= int64(len(m.pieces)):
		return fmt.Errorf("it has no end-of-text piece (eos_id is %d), with which documents end", m.eos)
	case m.pieces[m.eos].kind != spControl:
		return fmt.Errorf("its end-of-text piece %q is no control piece, so a text could contain it", m.pieces[m.eos].text)
	}
	byteCount, unknown := 0, 0
	for _, p := range m.pieces {
		switch p.kind {
		case spUnused:
			return fmt.Errorf("piece %q is unused, which is not supported", p.text)
		case spByte:
			byteCount++
		case spUnknown:
			unknown++
		case spNormal, spControl, spUserDefined:
		default:
			return fmt.Errorf("piece %q has the unknown type %d", p.text, p.kind)
		}
		if p.text == "" {
			return errors.New("it has an empty piece")
		}
	}
	if unknown != 1 {
		return fmt.Errorf("it has %d unknown pieces, want one", unknown)
	}
	if m.byteFallback && byteCount != 256 {
		return fmt.Errorf("byte_fallback is set, but there are %d byte pieces", byteCount)
	}
	return nil
}

// spPieces fills in the texts and the symbols, and returns the ids of pieces that merges may make. Characters that
// are no piece of their own but occur in one get numbers above the ids.
func (t *bpe) spPieces(m spModel) map[string]int32 {
	ids := map[string]int32{}
	for b := range t.bytes {
		t.bytes[b] = none
	}
	t.pieces = make([][]byte, len(m.pieces))
	for i, p := range m.pieces {
		id := int32(i)
		switch p.kind {
		case spNormal:
			t.pieces[i] = []byte(strings.ReplaceAll(p.text, metaspace, " "))
			ids[p.text] = id
		case spUserDefined:
			t.pieces[i] = []byte(strings.ReplaceAll(p.text, metaspace, " "))
			t.after.add([]byte(p.text), id)
		case spUnknown:
			t.unknown = id
		case spByte:
			if text, err := characterText(p.text); err == nil && len(text) == 1 && m.byteFallback {
				t.pieces[i] = text
				t.bytes[text[0]] = id
			}
		}
	}
	t.internal = int32(len(m.pieces))
	next := t.internal
	for _, p := range m.pieces {
		if p.kind != spNormal {
			continue
		}
		for _, r := range p.text {
			if _, ok := t.chars[r]; ok {
				continue
			}
			id, ok := ids[string(r)]
			if !ok {
				id = next
				ids[string(r)] = id
				next++
			}
			t.chars[r] = id
		}
	}
	return ids
}

// spMerges makes a table of the merges that SentencePiece finds by looking the joined text up: of any two symbols
// that make a piece, those of the highest score first.
func (t *bpe) spMerges(m spModel, ids map[string]int32) {
	order := make([]int, 0, len(m.pieces))
	for i, p := range m.pieces {
		if p.kind == spNormal {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m.pieces[b].score, m.pieces[a].score) })
	type pair struct{ left, right, id, rank int32 }
	var pairs []pair
	rank := int32(0)
	for k, i := range order {
		if k > 0 && m.pieces[order[k-1]].score != m.pieces[i].score {
			rank++
		}
		text := m.pieces[i].text
		for cut := range text {
			left, ok := ids[text[:cut]]
			if !ok {
				continue
			}
			if right, ok := ids[text[cut:]]; ok {
				pairs = append(pairs, pair{left, right, int32(i), rank})
			}
		}
	}
	t.merges = newPairTable(len(pairs))
	for _, p := range pairs {
		t.merges.set(p.left, p.right, merged{uint32(p.rank), p.id})
	}
}

// parseSentencePiece reads the fields of spModel from the protocol buffer's wire format.
func parseSentencePiece(raw []byte) (spModel, error) {
	m := spModel{modelType: spUnigram, eos: 2, dummyPrefix: true, collapseSpaces: true, escapeSpaces: true}
	err := eachField(raw, func(field protowire.Number, n uint64, part []byte) error {
		switch field {
		case 1:
			p := spPiece{kind: spNormal}
			err := eachField(part, func(field protowire.Number, n uint64, text []byte) error {
				switch field {
				case 1:
					p.text = string(text)
				case 2:
					p.score = math.Float32frombits(uint32(n))
				case 3:
					p.kind = int64(n)
				}
				return nil
			})
			m.pieces = append(m.pieces, p)
			return err
		case 2:
			return eachField(part, func(field protowire.Number, n uint64, _ []byte) error {
				switch field {
				case 3:
					m.modelType = int64(n)
				case 24:
					m.whitespaceSuffix = n != 0
				case 35:
					m.byteFallback = n != 0
				case 42:
					m.eos = int64(int32(n))
				}
				return nil
			})
		case 3:
			return eachField(part, func(field protowire.Number, n uint64, text []byte) error {
				switch field {
				case 2:
					m.charsMap = text
				case 3:
					m.dummyPrefix = n != 0
				case 4:
					m.collapseSpaces = n != 0
				case 5:
					m.escapeSpaces = n != 0
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && len(m.pieces) == 0 {
		err = errors.New("it has no pieces")
	}
	return m, err
}

// eachField calls f for the fields of a message: n is the value of a number, part of anything longer.
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
		case protowire.Fixed64Type:
			n, size = protowire.ConsumeFixed64(raw)
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

// normalizerSP is SentencePiece's normalizer: characters by a map, spaces to metaspaces.
type normalizerSP struct {
	chars       *charsMap // nil: as they are
	dummyPrefix bool      // a space in front
	collapse    bool      // no spaces at both ends, and one for several
	keep        *literals // texts that are left as they are
}

// append appends the normal form of text. Each byte that is not UTF-8 becomes U+FFFD.
func (n normalizerSP) append(dst, text []byte, _ bool) []byte {
	from := len(dst)
	if n.dummyPrefix {
		dst = append(dst, metaspace...)
	}
	start := len(dst)
	afterSpace := n.collapse
	for i := 0; i < len(text); {
		var out []byte
		out, i = n.next(text, i)
		if afterSpace {
			out = bytes.TrimLeft(out, " ")
		}
		if len(out) > 0 {
			dst = appendReplaced(dst, out, " ", metaspace)
			afterSpace = n.collapse && out[len(out)-1] == ' '
		}
	}
	for n.collapse && bytes.HasSuffix(dst[start:], []byte(metaspace)) {
		dst = dst[:len(dst)-len(metaspace)]
	}
	if len(dst) == start {
		return dst[:from] // nothing but spaces
	}
	return dst
}

// next is the normal form of what begins at i, and where that ends.
func (n normalizerSP) next(text []byte, i int) ([]byte, int) {
	if n.keep.any {
		if x, ok := n.keep.at(text[i:]); ok {
			return x.text, i + len(x.text)
		}
	}
	if n.chars != nil {
		if out, size := n.chars.longest(text[i:]); size > 0 {
			return out, i + size
		}
	}
	r, size := utf8.DecodeRune(text[i:])
	if r == utf8.RuneError && size == 1 {
		return []byte("\uFFFD"), i + 1
	}
	return text[i : i+size], i + size
}

// charsMap is a precompiled_charsmap: a double-array trie (darts-clone) of what is replaced, and the replacements.
type charsMap struct {
	trie   []uint32
	values []byte // strings that end in a zero byte
}

func parseCharsMap(blob []byte) (*charsMap, error) {
	if len(blob) < 4 {
		return nil, errors.New("is cut short")
	}
	word := func(i int) uint32 {
		return uint32(blob[i]) | uint32(blob[i+1])<<8 | uint32(blob[i+2])<<16 | uint32(blob[i+3])<<24
	}
	size := int(word(0))
	if size%4 != 0 || size == 0 || size > len(blob)-4 {
		return nil, fmt.Errorf("has a trie of %d bytes in %d", size, len(blob))
	}
	c := &charsMap{values: blob[4+size:]}
	for i := 0; i < size; i += 4 {
		c.trie = append(c.trie, word(4+i))
	}
	return c, nil
}

// longest returns the replacement of the longest prefix of text that has one, and the prefix's length; 0 without.
func (c *charsMap) longest(text []byte) (out []byte, size int) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
	at := offset(c.trie[0])
	for i, b := range text {
		at ^= uint32(b)
		if int(at) >= len(c.trie) {
			break
		}
		unit := c.trie[at]
		if unit&(1<<31|0xff) != uint32(b) {
			break
		}
		at ^= offset(unit)
		if unit>>8&1 == 1 && int(at) < len(c.trie) {
			if v := int(c.trie[at] & (1<<31 - 1)); v < len(c.values) {
				end := slices.Index(c.values[v:], 0)
				if end < 0 {
					end = len(c.values) - v
				}
				out, size = c.values[v:v+end], i+1
			}
		}
	}
	return out, size
}
