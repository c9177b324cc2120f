package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// spNormalizer is SentencePiece's normalizer: characters by a map, spaces to metaspaces.
type spNormalizer struct {
	chars    *charsMap // nil: unchanged
	prefix   bool      // a space in front
	suffix   bool      // a space after
	collapse bool      // no spaces at either end, and one instead of several
	keep     literals  // texts that are left unchanged
}

func newSPNormalizer(m *sentencepiece.Model) (*spNormalizer, error) {
	n := &spNormalizer{
		prefix:   m.DummyPrefix && !m.WhitespaceSuffix,
		suffix:   m.DummyPrefix && m.WhitespaceSuffix,
		collapse: m.RemoveSpaces,
	}
	if len(m.CharsMap) > 0 {
		var err error
		if n.chars, err = parseCharsMap(m.CharsMap); err != nil {
			return nil, fmt.Errorf("normalizer_spec.precompiled_charsmap: %w", err)
		}
	}
	for id, p := range m.Pieces {
		if p.Kind == sentencepiece.UserDefined {
			n.keep.add([]byte(p.Text), int32(id))
		}
	}
	return n, nil
}

// append appends the normal form of text. Each byte that is not UTF-8 becomes U+FFFD.
func (n *spNormalizer) append(dst, text []byte, _ bool) []byte {
	for n.collapse && len(text) > 0 {
		out, size := n.next(text)
		if string(out) != " " {
			break
		}
		text = text[size:]
	}
	if len(text) == 0 {
		return dst
	}
	from := len(dst)
	if n.prefix {
		dst = append(dst, metaspace...)
	}
	afterSpace := n.collapse
	for len(text) > 0 {
		out, size := n.next(text)
		text = text[size:]
		if afterSpace {
			out = bytes.TrimLeft(out, " ")
		}
		if len(out) > 0 {
			for _, b := range out {
				if b == ' ' {
					dst = append(dst, metaspace...)
				} else {
					dst = append(dst, b)
				}
			}
			afterSpace = n.collapse && out[len(out)-1] == ' '
		}
	}
	for n.collapse && bytes.HasSuffix(dst[from:], []byte(metaspace)) {
		dst = dst[:len(dst)-len(metaspace)]
	}
	if n.suffix {
		dst = append(dst, metaspace...)
	}
	return dst
}

// next returns the normal form of the beginning of text, and the number of bytes it replaces.
func (n *spNormalizer) next(text []byte) (out []byte, size int) {
	if n.keep.any {
		if x, ok := n.keep.at(text); ok {
			return x.text, len(x.text)
		}
	}
	if n.chars != nil {
		if out, size := n.chars.longest(text); size > 0 {
			return out, size
		}
	}
	r, size := utf8.DecodeRune(text)
	if r == utf8.RuneError && size == 1 {
		return []byte("\uFFFD"), 1
	}
	return text[:size], size
}

// charsMap is a precompiled_charsmap: a double-array trie (darts-clone) of what is replaced, and
// the replacements.
type charsMap struct {
	trie   []uint32
	values []byte // strings that end in a zero byte
}

func parseCharsMap(blob []byte) (*charsMap, error) {
	if len(blob) < 4 {
		return nil, errors.New("is cut short")
	}
	size := int(binary.LittleEndian.Uint32(blob))
	if size%4 != 0 || size == 0 || size > len(blob)-4 {
		return nil, fmt.Errorf("has a trie of %d bytes in %d", size, len(blob))
	}
	c := &charsMap{values: blob[4+size:]}
	for i := 4; i < 4+size; i += 4 {
		c.trie = append(c.trie, binary.LittleEndian.Uint32(blob[i:]))
	}
	return c, nil
}

// longest returns the replacement of the longest prefix of text that has one, and the prefix's
// length, or 0.
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
