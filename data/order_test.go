package data

import (
	"math"
	"slices"
	"testing"
)

func TestPermutation(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096, 10007} {
		p := newPermutation(n, 3407, 1)
		seen := make([]bool, n)
		for x := range n {
			y := p.apply(x)
			if y >= n || seen[y] {
				t.Fatalf("n %d: %d goes to %d, which is outside or taken", n, x, y)
			}
			seen[y] = true
			if back := p.invert(y); back != x {
				t.Fatalf("n %d: %d goes to %d and comes back as %d", n, x, y, back)
			}
		}
	}
	p := newPermutation(1<<40+1, 7)
	for x := range uint64(1000) {
		if back := p.invert(p.apply(x << 29)); back != x<<29 {
			t.Fatalf("%d comes back as %d", x<<29, back)
		}
	}
}

// TestPermutationIsUniform counts where each element goes over many keys.
func TestPermutationIsUniform(t *testing.T) {
	const keys = 20000
	for _, n := range []uint64{2, 3, 5, 16, 20} {
		counts := make([][]float64, n)
		for x := range counts {
			counts[x] = make([]float64, n)
		}
		for key := range uint64(keys) {
			p := newPermutation(n, key)
			for x := range n {
				counts[x][p.apply(x)]++
			}
		}
		mean := keys / float64(n)
		for x := range counts {
			for y, got := range counts[x] {
				if sigmas := math.Abs(got-mean) / math.Sqrt(mean*(1-1/float64(n))); sigmas > 5 {
					t.Errorf("n %d: %d goes to %d %v times of %d, %.1f standard deviations off", n, x, y, got, keys, sigmas)
				}
			}
		}
	}
}

// blockOf returns the block of a sample, as load and blockGroup.block find it.
func (o order) blockOf(sample int64) int64 {
	id, place := o.locate(sample)
	first, n := o.spanRange(o.groupSpanList(id)[place/o.spanBlocks])
	if place%o.spanBlocks >= n {
		return -1
	}
	return first + place%o.spanBlocks
}

func TestOrderCoversEveryEpochOnce(t *testing.T) {
	for _, blocks := range []int64{1, 2, 3, 7, 8, 9, 31, 32, 33, 100, 257, 1000} {
		for _, shape := range []struct{ spanBlocks, groupSpans int64 }{{1, 1}, {1, 4}, {3, 2}, {4, 4}, {8, 16}, {1000, 16}} {
			for seed := range uint64(5) {
				o := order{blocks: blocks, spanBlocks: shape.spanBlocks, groupSpans: shape.groupSpans, shuffle: true, seed: seed}
				for epoch := range int64(3) {
					seen := make([]bool, blocks)
					at := groupID{epoch, 0}
					for i := range blocks {
						id, _ := o.locate(epoch*blocks + i)
						if id != at {
							if at = o.next(at); id != at {
								t.Fatalf("%+v: sample %d is in group %v, want %v or the one before", o, epoch*blocks+i, id, at)
							}
						}
						b := o.blockOf(epoch*blocks + i)
						if b < 0 || b >= blocks || seen[b] {
							t.Fatalf("%+v: sample %d is block %d, which is outside or was seen", o, epoch*blocks+i, b)
						}
						seen[b] = true
					}
				}
			}
		}
	}
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	blocks := func(o order, epoch int64) []int64 {
		var out []int64
		for i := range o.blocks {
			out = append(out, o.blockOf(epoch*o.blocks+i))
		}
		return out
	}
	o := order{blocks: 100, spanBlocks: 4, groupSpans: 4, shuffle: true, seed: 1}
	base := blocks(o, 0)
	if !slices.Equal(base, blocks(o, 0)) {
		t.Error("the order is not a function of its arguments")
	}
	if slices.Equal(base, blocks(o, 1)) {
		t.Error("two epochs have the same order")
	}
	other := o
	other.seed = 2
	if slices.Equal(base, blocks(other, 0)) {
		t.Error("two seeds have the same order")
	}
	if slices.IsSorted(base) {
		t.Error("the order is not shuffled")
	}
	o.shuffle = false
	for epoch := range int64(2) {
		for i, b := range blocks(o, epoch) {
			if b != int64(i) {
				t.Fatalf("unshuffled, sample %d of epoch %d is block %d", i, epoch, b)
			}
		}
	}
}

// TestOrderStays pins the order: a run that resumes with another version must see the same batches.
func TestOrderStays(t *testing.T) {
	o := newOrder(5_000_000, 512, 3407)
	var got []int64
	for _, sample := range []int64{0, 1, 2, 4_999_999, 5_000_000, 123_456_789} {
		got = append(got, o.blockOf(sample))
	}
	want := []int64{225229, 24391, 3234992, 4368622, 1217003, 1888234}
	if !slices.Equal(got, want) {
		t.Errorf("blocks are %v, want %v", got, want)
	}
}
