package data

import (
	"bytes"
	"fmt"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// bpe is byte-pair encoding as Hugging Face's tokenizer.json and SentencePiece's tokenizer.model describe it. Text
// passes through these stages, each of which may be absent:
//
//	literals before -> normalize -> literals after -> split into words -> symbols -> merges
//
// Words are encoded independently of each other, so their ids are cached.
type bpe struct {
	vocabulary

	before    literals // found in the unmodified text
	normalize func(dst, text []byte, first bool) []byte
	after     literals // found in the normalized text
	split     splitter

	chars    map[rune]int32 // symbol of each character; nil in a byte-level vocabulary
	whole    map[string]int32
	merges   pairTable
	internal int32 // symbols from this number on are characters without an id

	scratch sync.Pool
}

// splitter splits normalized text into words, which emit receives in order. first says that the
// text is at the beginning of the document.
type splitter func(text []byte, first bool, emit func(word []byte))

const (
	// The cache of words belongs to a goroutine's scratch. It is emptied when it is full.
	maxCachedWord  = 48 // bytes
	maxCachedWords = 1 << 16
)

func (t *bpe) Encode(dst []int32, text []byte) (ids []int32, err error) {
	s, _ := t.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{cache: map[string][]int32{}}
	}
	defer t.scratch.Put(s)
	defer func() {
		s.out = nil
		if p := recover(); p != nil {
			slow, ok := p.(slowPattern)
			if !ok {
				panic(p)
			}
			ids, err = nil, fmt.Errorf("tokenizer %s: %w", t.info.Name, slow)
		}
	}()
	s.out = dst
	t.before.cut(text, func(part []byte, first bool) { t.encodePart(s, part, first) }, s.put)
	return s.out, nil
}

// encodePart encodes text between two literals.
func (t *bpe) encodePart(s *scratch, part []byte, first bool) {
	if t.normalize != nil {
		s.normal = t.normalize(s.normal[:0], part, first)
		part = s.normal
	}
	t.after.cut(part, func(part []byte, firstPart bool) {
		t.split(part, first && firstPart, func(word []byte) { t.encodeWord(s, word) })
	}, s.put)
}

func (t *bpe) encodeWord(s *scratch, word []byte) {
	cached := len(word) <= maxCachedWord
	if cached {
		if ids, ok := s.cache[string(word)]; ok {
			s.out = append(s.out, ids...)
			return
		}
	}
	from := len(s.out)
	if id, ok := t.whole[string(word)]; ok {
		s.put(id)
	} else {
		t.symbols(s, word)
		t.merge(s)
		t.collect(s, word)
	}
	if cached {
		if len(s.cache) == maxCachedWords {
			clear(s.cache)
		}
		s.cache[string(word)] = append([]int32(nil), s.out[from:]...)
	}
}

// scratch is the working memory of one goroutine.
type scratch struct {
	out    []int32
	normal []byte
	list   []symbol
	heap   []uint64
	cache  map[string][]int32
}

func (s *scratch) put(id int32) { s.out = append(s.out, id) }

// symbol is a part of a word, in a doubly linked list.
type symbol struct {
	id         int32 // none for what has no symbol, and for what was merged into another
	start      int32 // in the word, in bytes
	prev, next int32
}

// symbols builds the list of a word's bytes or characters.
func (t *bpe) symbols(s *scratch, word []byte) {
	s.list = s.list[:0]
	add := func(id int32, start int) {
		n := int32(len(s.list))
		s.list = append(s.list, symbol{id: id, start: int32(start), prev: n - 1, next: n + 1})
	}
	if t.chars == nil {
		for i, b := range word {
			add(t.bytes[b], i)
		}
	} else {
		for i := 0; i < len(word); {
			r, size := utf8.DecodeRune(word[i:])
			id, ok := t.chars[r]
			if !ok || r == utf8.RuneError && size == 1 {
				id = none
			}
			add(id, i)
			i += size
		}
	}
	if n := len(s.list); n > 0 {
		s.list[n-1].next = none
	}
}

// merge applies merges until none is left: always the one of the lowest rank, and among equals the
// leftmost.
func (t *bpe) merge(s *scratch) {
	s.heap = s.heap[:0]
	suggest := func(left int32) {
		right := s.list[left].next
		if right < 0 {
			return
		}
		if m, ok := t.merges.find(s.list[left].id, s.list[right].id); ok {
			s.push(uint64(m.rank)<<32 | uint64(left))
		}
	}
	for i := range s.list {
		suggest(int32(i))
	}
	for len(s.heap) > 0 {
		top := s.pop()
		at := int32(uint32(top))
		left := &s.list[at]
		if left.id < 0 || left.next < 0 {
			continue
		}
		right := &s.list[left.next]
		m, ok := t.merges.find(left.id, right.id)
		if !ok || uint64(m.rank) != top>>32 {
			continue // one of the two has been merged with another in the meantime
		}
		left.id, right.id = m.id, none
		left.next = right.next
		if left.next >= 0 {
			s.list[left.next].prev = at
		}
		suggest(at)
		if left.prev >= 0 {
			suggest(left.prev)
		}
	}
}

// collect writes the ids of the list.
func (t *bpe) collect(s *scratch, word []byte) {
	lastUnknown := false
	for i := int32(0); i >= 0 && int(i) < len(s.list); i = s.list[i].next {
		if id := s.list[i].id; id >= 0 && id < t.internal {
			s.put(id)
			lastUnknown = false
			continue
		}
		end := len(word)
		if next := s.list[i].next; next >= 0 {
			end = int(s.list[next].start)
		}
		part := word[s.list[i].start:end]
		s.out, lastUnknown = t.appendUnknown(s.out, part, lastUnknown)
	}
}

// push and pop keep heap[0] the smallest.
func (s *scratch) push(key uint64) {
	h := append(s.heap, key)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if h[up] <= key {
			break
		}
		h[i], i = h[up], up
	}
	h[i] = key
	s.heap = h
}

func (s *scratch) pop() uint64 {
	h := s.heap
	top, key := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1] < h[down] {
			down++
		}
		if h[down] >= key {
			break
		}
		h[i], i = h[down], down
	}
	if len(h) > 0 {
		h[i] = key
	}
	s.heap = h
	return top
}

// merged is the result of merging two neighbors, and the rank of the merge.
type merged struct {
	rank uint32
	id   int32
}

// pairTable maps pairs of symbols to merges: a hash table with open addressing, at most half full.
// It is read for every pair of neighbors and is several times faster than a Go map.
type pairTable struct {
	keys   []uint64 // left<<32 | right, plus 1 so that 0 is a free place
	merges []merged
	shift  int
}

func newPairTable(n int) pairTable {
	size := bits.Len(uint(max(1, n)))
	return pairTable{keys: make([]uint64, 2<<size), merges: make([]merged, 2<<size), shift: 64 - size - 1}
}

// place returns where a key is, or the free place where it belongs.
func (p *pairTable) place(key uint64) uint64 {
	mask := uint64(len(p.keys) - 1)
	i := key * 0x9e3779b97f4a7c15 >> p.shift
	for p.keys[i] != 0 && p.keys[i] != key {
		i = (i + 1) & mask
	}
	return i
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) + 1 }

// set replaces what was stored for the pair.
func (p *pairTable) set(left, right int32, m merged) {
	key := pairKey(left, right)
	i := p.place(key)
	p.keys[i], p.merges[i] = key, m
}

func (p *pairTable) find(left, right int32) (merged, bool) {
	if left < 0 || right < 0 {
		return merged{}, false
	}
	i := p.place(pairKey(left, right))
	return p.merges[i], p.keys[i] != 0
}

// literals are texts that have their own id wherever they occur.
type literals struct {
	first [256][]literal // by first byte, the longest first
	any   bool
}

type literal struct {
	text []byte
	id   int32
}

func (l *literals) add(text []byte, id int32) {
	list := l.first[text[0]]
	i := 0
	for i < len(list) && len(list[i].text) >= len(text) {
		i++
	}
	l.first[text[0]] = append(list[:i:i], append([]literal{{text, id}}, list[i:]...)...)
	l.any = true
}

// at returns the longest literal that text begins with.
func (l *literals) at(text []byte) (literal, bool) {
	for _, x := range l.first[text[0]] {
		if bytes.HasPrefix(text, x.text) {
			return x, true
		}
	}
	return literal{}, false
}

// cut passes literals to found, and the nonempty parts between them to between. first says that a
// part is at the beginning of the text.
func (l *literals) cut(text []byte, between func(part []byte, first bool), found func(id int32)) {
	from := 0
	if l.any {
		for i := 0; i < len(text); {
			x, ok := l.at(text[i:])
			if !ok {
				i++
				continue
			}
			if from < i {
				between(text[from:i], from == 0)
			}
			found(x.id)
			i += len(x.text)
			from = i
		}
	}
	if from < len(text) {
		between(text[from:], from == 0)
	}
}
