package data

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// openSentencePiece reads a tokenizer.model.
func openSentencePiece(path string) (fileTokenizer, error) {
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

func newSentencePiece(raw []byte) (fileTokenizer, error) {
	m, err := sentencepiece.Parse(raw)
	if err != nil {
		return nil, err
	}
	if err := checkSentencePiece(m); err != nil {
		return nil, err
	}
	n, err := newSPNormalizer(m)
	if err != nil {
		return nil, err
	}
	v := spVocabulary(m)
	eos := int32(m.EOS)
	v.info = TokenizerInfo{VocabSize: len(m.Pieces), EOS: eos, Fingerprint: fingerprintOf(raw, eos)}
	v.exports = map[string][]byte{tokenizerModel: raw}
	if m.Type == sentencepiece.Unigram {
		return newUnigram(m, v, n), nil
	}
	return newSPBPE(m, v, n), nil
}

// maxPiece limits the number of bytes of a piece: the time to find its merges is quadratic.
const maxPiece = 1 << 14

func checkSentencePiece(m *sentencepiece.Model) error {
	switch {
	case m.Type != sentencepiece.BPE && m.Type != sentencepiece.Unigram:
		return fmt.Errorf("model_type %v is not supported: only bpe and unigram are", m.Type)
	case !m.EscapeSpaces:
		return errors.New("escape_whitespaces false is not supported")
	case m.EOS < 0 || m.EOS >= len(m.Pieces):
		return fmt.Errorf("it has no end-of-text piece (eos_id is %d), with which documents end", m.EOS)
	case m.Pieces[m.EOS].Kind != sentencepiece.Control:
		return fmt.Errorf("its end-of-text piece %q is not a control piece, so a text could contain it", m.Pieces[m.EOS].Text)
	}
	byteCount, unknown := 0, 0
	texts := map[string]bool{} // of pieces that a text may have
	for _, p := range m.Pieces {
		switch p.Kind {
		case sentencepiece.Unused:
			if m.Type == sentencepiece.BPE {
				return fmt.Errorf("piece %q is unused, which is not supported in a bpe model", p.Text)
			}
		case sentencepiece.Byte:
			byteCount++
		case sentencepiece.Unknown:
			unknown++
		case sentencepiece.Normal, sentencepiece.UserDefined:
			if texts[p.Text] {
				return fmt.Errorf("it has the piece %q twice", p.Text)
			}
			texts[p.Text] = true
		case sentencepiece.Control:
		default:
			return fmt.Errorf("piece %q has the unknown type %d", p.Text, p.Kind)
		}
		if p.Text == "" {
			return errors.New("it has an empty piece")
		}
		if strings.ContainsRune(p.Text, 0) {
			return fmt.Errorf("piece %q has a zero byte", p.Text)
		}
		if len(p.Text) > maxPiece {
			return fmt.Errorf("piece %q... has %d bytes, more than %d", p.Text[:16], len(p.Text), maxPiece)
		}
	}
	if unknown != 1 {
		return fmt.Errorf("it has %d unknown pieces, want one", unknown)
	}
	if m.ByteFallback && byteCount != 256 {
		return fmt.Errorf("byte_fallback is set, but there are %d byte pieces", byteCount)
	}
	return nil
}

// spVocabulary returns what the ids of a model stand for.
func spVocabulary(m *sentencepiece.Model) vocabulary {
	v := vocabulary{pieces: make([][]byte, len(m.Pieces)), fuse: true}
	for b := range v.bytes {
		v.bytes[b] = none
	}
	for i, p := range m.Pieces {
		switch p.Kind {
		case sentencepiece.Normal, sentencepiece.UserDefined:
			v.pieces[i] = []byte(strings.ReplaceAll(p.Text, metaspace, " "))
		case sentencepiece.Unknown:
			v.unknown = int32(i)
		case sentencepiece.Byte:
			if text, err := characterText(p.Text); err == nil && len(text) == 1 && m.ByteFallback {
				v.pieces[i] = text
				v.bytes[text[0]] = int32(i)
			}
		}
	}
	return v
}

func newSPBPE(m *sentencepiece.Model, v vocabulary, n *spNormalizer) *bpe {
	t := &bpe{vocabulary: v, normalize: n.append, after: n.keep, split: keepWhole}
	merges := spMerges(m, t.spSymbols(m))
	t.merges = newPairTable(len(merges))
	for _, x := range merges {
		t.merges.set(x.left, x.right, merged{uint32(x.rank), x.id})
	}
	if t.hfCanSay(m, merges) {
		maps.Copy(t.exports, hfFiles(m, merges))
	}
	if !slices.ContainsFunc(m.Pieces, func(p sentencepiece.Piece) bool { return crossesSpaces(p.Text) }) {
		t.split = splitSpaceRuns
	}
	return t
}

// spSymbols fills in the symbols of characters, and returns the ids of pieces that merges may form.
// Characters that are not a piece but occur in one get numbers above the ids.
func (t *bpe) spSymbols(m *sentencepiece.Model) map[string]int32 {
	ids := map[string]int32{}
	for i, p := range m.Pieces {
		if p.Kind == sentencepiece.Normal {
			ids[p.Text] = int32(i)
		}
	}
	t.chars = map[rune]int32{}
	t.internal = int32(len(m.Pieces))
	next := t.internal
	for _, p := range m.Pieces {
		if p.Kind != sentencepiece.Normal {
			continue
		}
		for _, r := range p.Text {
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

// spMerge is two symbols that SentencePiece merges, and the resulting piece. Lower ranks are merged
// first.
type spMerge struct{ left, right, id, rank int32 }

// spMerges lists the merges that SentencePiece finds by looking up the concatenation: all pairs of
// symbols that form a piece, those of the highest score first.
func spMerges(m *sentencepiece.Model, ids map[string]int32) []spMerge {
	order := make([]int, 0, len(m.Pieces))
	for i, p := range m.Pieces {
		if p.Kind == sentencepiece.Normal {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m.Pieces[b].Score, m.Pieces[a].Score) })
	var list []spMerge
	rank := int32(0)
	for k, i := range order {
		if k > 0 && m.Pieces[order[k-1]].Score != m.Pieces[i].Score {
			rank++
		}
		text := m.Pieces[i].Text
		for cut := range text {
			left, ok := ids[text[:cut]]
			if !ok {
				continue
			}
			if right, ok := ids[text[cut:]]; ok {
				list = append(list, spMerge{left, right, int32(i), rank})
			}
		}
	}
	return list
}
