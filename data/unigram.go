package data

import (
	"math"
	"slices"
	"sync"

	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// unigram is SentencePiece's unigram language model (Kudo, arXiv 1804.10959): of all segmentations
// of a text into pieces, it chooses the one with the largest sum of scores. Sums start at the
// text's first byte, and are rounded and compared as in the reference (EncodeOptimized of
// unigram_model.cc): near ties are decided by rounding.
type unigram struct {
	vocabulary
	normalize *spNormalizer

	next         pairTable // (node, byte) -> the next node, of a trie of the pieces
	ids          []int32   // of the piece that ends at a node, or none
	scores       []float64 // by id
	unknownScore float32   // of a character that is not a piece

	scratch sync.Pool
}

const (
	// unknownPenalty is how far below the worst piece a character scores that is not a piece.
	unknownPenalty = 10
	// userPenalty is the cost of a user-defined symbol, so small that it is always chosen.
	userPenalty = 0.1
)

func newUnigram(m *sentencepiece.Model, v vocabulary, n *spNormalizer) *unigram {
	t := &unigram{vocabulary: v, normalize: n, ids: []int32{none}, scores: make([]float64, len(m.Pieces))}
	bytes := 0
	// The reference starts the search for the best score at the smallest positive number.
	worst, best := float32(math.MaxFloat32), float32(0x1p-126)
	for _, p := range m.Pieces {
		bytes += len(p.Text)
		if p.Kind == sentencepiece.Normal {
			worst, best = min(worst, p.Score), max(best, p.Score)
		}
	}
	t.unknownScore = worst - unknownPenalty
	t.next = newPairTable(bytes)
	for id, p := range m.Pieces {
		switch p.Kind {
		case sentencepiece.Normal:
			t.scores[id] = float64(p.Score)
		case sentencepiece.UserDefined:
			t.scores[id] = float64(float32(len(p.Text))*best) - userPenalty
		default:
			continue
		}
		t.add(p.Text, int32(id))
	}
	return t
}

// add adds a piece to the trie.
func (t *unigram) add(text string, id int32) {
	node := int32(0)
	for i := range len(text) {
		m, ok := t.next.find(node, int32(text[i]))
		if !ok {
			m.id = int32(len(t.ids))
			t.ids = append(t.ids, none)
			t.next.set(node, int32(text[i]), m)
		}
		node = m.id
	}
	t.ids[node] = id
}

// unigramScratch is the working memory of one goroutine.
type unigramScratch struct {
	normal []byte
	ends   []pathEnd
	path   []int
}

// pathEnd is the best segmentation of the text up to some byte.
type pathEnd struct {
	score float32 // of the whole text up to there
	start int32   // of the last piece; none if no segmentation ends there
	id    int32   // of the last piece; none for a character that is not a piece
}

func (t *unigram) Encode(dst []int32, text []byte) ([]int32, error) {
	s, _ := t.scratch.Get().(*unigramScratch)
	if s == nil {
		s = &unigramScratch{}
	}
	defer t.scratch.Put(s)
	s.normal = t.normalize.append(s.normal[:0], text, true)
	text = s.normal
	// s.ends holds the ends of segmentations of text[base:]. If no piece continues beyond a place,
	// all segmentations go through it, so that what is before it can be written.
	s.ends = append(s.ends[:0], pathEnd{})
	base, afterUnknown := 0, false
	for from := 0; from < len(text); {
		if at := from - base; at > 0 && at == len(s.ends)-1 {
			dst, afterUnknown = t.appendPath(dst, s, text[base:from], afterUnknown)
			s.ends[0] = pathEnd{score: s.ends[at].score}
			s.ends = s.ends[:1]
			base = from
		}
		size := min(leadLength(text[from]), len(text)-from)
		t.extend(s, text, base, from, size)
		from += size
	}
	dst, _ = t.appendPath(dst, s, text[base:], afterUnknown)
	return dst, nil
}

// extend tries all pieces that start at from, where there is a character of size bytes.
func (t *unigram) extend(s *unigramScratch, text []byte, base, from, size int) {
	before := s.ends[from-base].score
	known := false
	node := int32(0)
	for to := from; to < len(text); {
		m, ok := t.next.find(node, int32(text[to]))
		if !ok {
			break
		}
		to++
		node = m.id
		if id := t.ids[node]; id >= 0 {
			s.reach(to-base, from-base, id, t.scores[id]+float64(before))
			known = known || to == from+size
		}
	}
	if !known {
		s.reach(from+size-base, from-base, none, float64(t.unknownScore+before))
	}
}

// reach keeps the segmentation up to end whose last piece begins at start, if it is better than the
// previous one.
func (s *unigramScratch) reach(end, start int, id int32, score float64) {
	for len(s.ends) <= end {
		s.ends = append(s.ends, pathEnd{start: none})
	}
	if e := &s.ends[end]; e.start < 0 || score > float64(e.score) {
		*e = pathEnd{float32(score), int32(start), id}
	}
}

// appendPath appends the ids of the best segmentation of part, which s.ends describes.
func (t *unigram) appendPath(dst []int32, s *unigramScratch, part []byte, afterUnknown bool) ([]int32, bool) {
	s.path = s.path[:0]
	for at := len(part); at > 0; at = int(s.ends[at].start) {
		s.path = append(s.path, at)
	}
	for _, end := range slices.Backward(s.path) {
		if e := s.ends[end]; e.id >= 0 {
			dst, afterUnknown = append(dst, e.id), false
		} else {
			dst, afterUnknown = t.appendUnknown(dst, part[e.start:end], afterUnknown)
		}
	}
	return dst, afterUnknown
}

// leadLength returns the length of a UTF-8 character from its first byte.
func leadLength(b byte) int {
	switch {
	case b < 0xc0:
		return 1
	case b < 0xe0:
		return 2
	case b < 0xf0:
		return 3
	}
	return 4
}
