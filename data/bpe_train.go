package data

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// TrainTokenizer learns a byte-level BPE from the text that c names, and returns the files in
// Hugging Face's format: a tokenizer.json whose ids are the 256 bytes, the merges in the order they
// were found, and the end-of-text token. Words are split as in Llama 3. vocabSize limits the number
// of ids; there are fewer if no pair of neighboring pieces occurs more than once. Equal text gives
// equal files.
//
// Time and memory grow with the bytes of the different words, however long these are. progress, which
// may be nil, is called from time to time, from one goroutine at a time.
func TrainTokenizer(ctx context.Context, c TextConfig, vocabSize int, progress func(Progress)) (map[string][]byte, error) {
	if vocabSize < minTrainedVocab || vocabSize > maxTrainedVocab {
		return nil, fmt.Errorf("vocab_size: must be %d to %d, is %d", minTrainedVocab, maxTrainedVocab, vocabSize)
	}
	var done Progress
	counts, err := countWords(ctx, c, func(p Progress) {
		if done = p; progress != nil {
			progress(p)
		}
	})
	if err != nil {
		return nil, err
	}
	if len(counts) == 0 {
		return nil, errors.New("data.text: the files hold no text: point data.text.path at other text")
	}
	t := newBPETrainer(counts)
	for len(t.pieces) < vocabSize-1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		best, ok := t.best()
		if !ok {
			break
		}
		t.merge(best)
		if progress != nil {
			done.IDs = len(t.pieces) + 1
			progress(done)
		}
	}
	return t.files(), nil
}

// Bounds of a trained vocabulary: the bytes, one merge and the end-of-text token; and ids that fit
// in tens of megabytes.
const (
	minTrainedVocab = 258
	maxTrainedVocab = 1 << 20
)

// countWords counts the words of all documents, on all cores.
func countWords(ctx context.Context, c TextConfig, progress func(Progress)) (map[string]int64, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	folder, err := c.folder()
	if err != nil {
		return nil, err
	}
	files, _, err := listFiles(ctx, folder, "", c)
	if err != nil {
		return nil, err
	}
	split, err := splitPattern(patternLlama3, false)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *chunk)
	g.Go(func() error {
		defer close(work)
		done := Progress{FilesTotal: len(files)}
		return readChunks(ctx, files, c.JSONLField, position{}, func(c *chunk) error {
			select {
			case work <- c:
			case <-ctx.Done():
				return ctx.Err()
			}
			done.Files += c.files
			done.Documents += int64(len(c.raw))
			done.Bytes += c.bytes
			progress(done)
			return nil
		})
	})
	parts := make([]map[string]int64, runtime.GOMAXPROCS(0))
	for i := range parts {
		g.Go(func() (err error) {
			parts[i], err = countPart(work, folder, c.JSONLField, split)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := parts[0]
	for _, part := range parts[1:] {
		for word, n := range part {
			all[word] += n
		}
	}
	return all, nil
}

// countPart counts the words of the chunks that it receives, of files below folder.
func countPart(work <-chan *chunk, folder, jsonlField string, split splitter) (map[string]int64, error) {
	counts := map[string]*int64{} // by pointer: a word that was seen before needs no new string
	for part := range work {
		for _, raw := range part.raw {
			text, err := raw.text(jsonlField)
			if err != nil {
				return nil, fmt.Errorf("data.text: %s: %w", filepath.Join(folder, filepath.FromSlash(raw.name)), err)
			}
			split(text, true, func(word []byte) {
				if n, ok := counts[string(word)]; ok {
					*n++
				} else {
					one := int64(1)
					counts[string(word)] = &one
				}
			})
		}
	}
	total := make(map[string]int64, len(counts))
	for word, n := range counts {
		total[word] = *n
	}
	return total, nil
}

// bpeTrainer holds the words as merged so far, and where each pair of neighbors occurs.
type bpeTrainer struct {
	pieces []string         // by id
	ids    map[string]int32 // of pieces: two pairs may form the same one
	merges [][2]int32
	merged map[[2]int32]bool

	words []trainedWord
	pairs map[[2]int32]*pairCount // those that occur
	heap  pairHeap
	grown map[[2]int32]bool // pairs that occur more often since the last merge
}

// trainedWord has one element for each byte of a word. At the first byte of a piece it is the piece's
// id, and at the last byte, if the piece is longer, minus its number of bytes; in between it is negative.
// So a merge changes the neighborhood of each occurrence alone, however long the word is.
type trainedWord struct {
	ids   []int32
	count int64
}

// pairCount is how often a pair occurs in the text, and where.
type pairCount struct {
	count int64
	at    []occurrence // in order of their finding; some may have gone since
}

// occurrence is a word, and the byte of it where the left piece of a pair begins.
type occurrence struct{ word, byte int32 }

// candidate is a pair with its count at the time when it was put on the heap.
type candidate struct {
	left, right int32
	count       int64
}

func newBPETrainer(counts map[string]int64) *bpeTrainer {
	t := &bpeTrainer{ids: map[string]int32{}, merged: map[[2]int32]bool{}, pairs: map[[2]int32]*pairCount{}, grown: map[[2]int32]bool{}}
	for b := range 256 {
		t.add(string([]byte{byte(b)}))
	}
	for i, word := range slices.Sorted(maps.Keys(counts)) {
		w := trainedWord{make([]int32, len(word)), counts[word]}
		for j := range len(word) {
			w.ids[j] = int32(word[j])
			if j > 0 {
				t.count([2]int32{w.ids[j-1], w.ids[j]}, w.count, occurrence{int32(i), int32(j - 1)})
			}
		}
		t.words = append(t.words, w)
	}
	for pair := range t.grown {
		t.heap = append(t.heap, candidate{pair[0], pair[1], t.pairs[pair].count})
	}
	heap.Init(&t.heap)
	return t
}

// add adds a piece, or finds the existing one, and returns its id.
func (t *bpeTrainer) add(piece string) int32 {
	id, ok := t.ids[piece]
	if !ok {
		id = int32(len(t.pieces))
		t.ids[piece] = id
		t.pieces = append(t.pieces, piece)
	}
	return id
}

// count adds n occurrences of a pair in the text, at one place.
func (t *bpeTrainer) count(pair [2]int32, n int64, at occurrence) {
	p := t.pairs[pair]
	if p == nil {
		p = &pairCount{}
		t.pairs[pair] = p
	}
	p.count += n
	p.at = append(p.at, at)
	t.grown[pair] = true
}

// uncount takes n occurrences of a pair away.
func (t *bpeTrainer) uncount(pair [2]int32, n int64) {
	p := t.pairs[pair]
	if p == nil {
		return // the pair that is being merged
	}
	if p.count -= n; p.count == 0 {
		delete(t.pairs, pair)
	}
}

// best takes the most frequent pair from the heap, among equals the one with the lowest ids.
func (t *bpeTrainer) best() (candidate, bool) {
	for len(t.heap) > 0 {
		top := heap.Pop(&t.heap).(candidate)
		now := t.pairs[[2]int32{top.left, top.right}]
		switch {
		case now == nil || now.count < 2:
		case now.count == top.count:
			return top, true
		default:
			top.count = now.count
			heap.Push(&t.heap, top)
		}
	}
	return candidate{}, false
}

// merge merges the pair wherever it occurs.
func (t *bpeTrainer) merge(c candidate) {
	pair := [2]int32{c.left, c.right}
	id := t.add(t.pieces[c.left] + t.pieces[c.right])
	// A pair comes back if another merge forms one of its two pieces again; its rank is that of the
	// first time.
	if !t.merged[pair] {
		t.merged[pair] = true
		t.merges = append(t.merges, pair)
	}
	places := t.pairs[pair].at
	delete(t.pairs, pair)
	if c.left == c.right {
		// Of three equal pieces the first two are merged.
		slices.SortFunc(places, func(a, b occurrence) int { return cmp.Or(cmp.Compare(a.word, b.word), cmp.Compare(a.byte, b.byte)) })
	}
	clear(t.grown)
	for _, at := range places {
		t.mergeAt(c, id, at)
	}
	for pair := range t.grown {
		if p := t.pairs[pair]; p != nil && p.count >= 2 {
			heap.Push(&t.heap, candidate{pair[0], pair[1], p.count})
		}
	}
}

// mergeAt merges the pair at one place, if it still is there, to the piece id.
func (t *bpeTrainer) mergeAt(c candidate, id int32, at occurrence) {
	w := &t.words[at.word]
	first := int(at.byte)
	second := first + len(t.pieces[c.left])
	end := second + len(t.pieces[c.right])
	if w.ids[first] != c.left || end > len(w.ids) || w.ids[second] != c.right {
		return
	}
	w.ids[second] = -1
	w.ids[first], w.ids[end-1] = id, int32(first-end)
	if first > 0 {
		before := first - 1
		if n := w.ids[before]; n < 0 {
			before = first + int(n)
		}
		t.uncount([2]int32{w.ids[before], c.left}, w.count)
		t.count([2]int32{w.ids[before], id}, w.count, occurrence{at.word, int32(before)})
	}
	if end < len(w.ids) {
		t.uncount([2]int32{c.right, w.ids[end]}, w.count)
		t.count([2]int32{id, w.ids[end]}, w.count, at)
	}
}

type pairHeap []candidate

func (h pairHeap) Len() int      { return len(h) }
func (h pairHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h pairHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right)) < 0
}
func (h *pairHeap) Push(x any) { *h = append(*h, x.(candidate)) }
func (h *pairHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// files returns the vocabulary in the format that the Hugging Face libraries read.
func (t *bpeTrainer) files() map[string][]byte {
	chars := byteLevelAlphabet()
	names := make([]string, len(t.pieces))
	vocab := map[string]int{}
	for id, piece := range t.pieces {
		var name strings.Builder
		for i := range len(piece) {
			name.WriteRune(chars[piece[i]])
		}
		names[id] = name.String()
		vocab[names[id]] = id
	}
	lines := make([]string, len(t.merges))
	for i, m := range t.merges {
		lines[i] = names[m[0]] + " " + names[m[1]]
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
	split := map[string]any{"type": "Split", "pattern": map[string]any{"Regex": patternLlama3}, "behavior": "Isolated", "invert": false}
	return byteLevelFiles(vocab, lines, len(t.pieces),
		map[string]any{"type": "Sequence", "pretokenizers": []any{split, byteLevel}}, byteLevel)
}
