package data

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// naiveMerges trains as the definition says: it counts all pairs anew before each merge.
func naiveMerges(counts map[string]int64, vocabSize int) (merges [][2]string) {
	ids := map[string]int{}
	for b := range 256 {
		ids[string([]byte{byte(b)})] = b
	}
	words := map[string][]string{}
	for word := range counts {
		for i := range len(word) {
			words[word] = append(words[word], word[i:i+1])
		}
	}
	for len(ids) < vocabSize-1 {
		pairs := map[[2]string]int64{}
		for word, pieces := range words {
			for i := 1; i < len(pieces); i++ {
				pairs[[2]string{pieces[i-1], pieces[i]}] += counts[word]
			}
		}
		var best [2]string
		for pair, n := range pairs {
			most := pairs[best]
			less := n == most && slices.Compare([]int{ids[pair[0]], ids[pair[1]]}, []int{ids[best[0]], ids[best[1]]}) < 0
			if n >= 2 && (n > most || less) {
				best = pair
			}
		}
		if pairs[best] == 0 {
			break
		}
		piece := best[0] + best[1]
		if _, ok := ids[piece]; !ok {
			ids[piece] = len(ids)
		}
		if !slices.Contains(merges, best) {
			merges = append(merges, best)
		}
		for word, pieces := range words {
			var out []string
			for i := 0; i < len(pieces); i++ {
				if i+1 < len(pieces) && pieces[i] == best[0] && pieces[i+1] == best[1] {
					out = append(out, piece)
					i++
				} else {
					out = append(out, pieces[i])
				}
			}
			words[word] = out
		}
	}
	return merges
}

// TestMergesByDefinition compares the trainer with naiveMerges on words with many repetitions, in which
// occurrences overlap and one piece is formed by several pairs.
func TestMergesByDefinition(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		letters, longest := 1+r.IntN(4), 2+r.IntN(60)
		counts := map[string]int64{}
		for range 1 + r.IntN(30) {
			word := make([]byte, 1+r.IntN(longest))
			for i := range word {
				word[i] = "abcd"[r.IntN(letters)]
			}
			counts[string(word)] += int64(1 + r.IntN(5))
		}
		want := naiveMerges(counts, 400)
		trainer := newBPETrainer(counts)
		for len(trainer.pieces) < 399 {
			best, ok := trainer.best()
			if !ok {
				break
			}
			trainer.merge(best)
		}
		var got [][2]string
		for _, m := range trainer.merges {
			got = append(got, [2]string{trainer.pieces[m[0]], trainer.pieces[m[1]]})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: merges are\n%q\nwant\n%q", seed, got, want)
		}
	}
}

// TestLongWord: time does not grow with the number of merges times the length of a word, and progress
// is told. Recounting the whole word for each merge took more than 100 s for this text.
func TestLongWord(t *testing.T) {
	const vocabSize = 20000
	r := rand.New(rand.NewPCG(1, 2))
	word := make([]byte, 1_000_000)
	for i := range word {
		word[i] = byte('a' + r.IntN(26))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	folder := writeFiles(t, map[string]string{"a.txt": string(word)})
	var counting, merging []int
	_, err := TrainTokenizer(ctx, TextConfig{Path: folder, JSONLField: "text"}, vocabSize, func(p Progress) {
		if p.IDs == 0 {
			counting = append(counting, p.Files)
		} else {
			merging = append(merging, p.IDs)
		}
		if p.FilesTotal != 1 {
			t.Errorf("progress is %+v", p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(counting) != "[1]" || len(merging) != vocabSize-257 || merging[0] != 258 || merging[len(merging)-1] != vocabSize {
		t.Errorf("progress is %v files, then %d times ids", counting, len(merging))
	}
}
