package data

import "math/bits"

// Sizes of the window of blocks that are open together. They are part of the order: changing one
// changes the batch at every step.
const (
	// spanTokens is the length of the runs of consecutive blocks that are decoded together, in
	// tokens. With four row groups per span, five are decoded on average.
	spanTokens = 1 << 19
	// spansPerGroup is the number of spans, from anywhere in the split, that are open and mixed at
	// once.
	spansPerGroup = 16
)

// order maps a sample's index to a block of the split, in constant memory.
//
// Consecutive blocks form spans of spanBlocks; the last may be short. An epoch is a permutation of
// the spans; each groupSpans of them in that order form a group, and within each group the blocks
// are permuted. Every epoch therefore visits every block once, while only the spans of one group
// need to be open.
type order struct {
	blocks     int64 // in an epoch
	spanBlocks int64
	groupSpans int64
	shuffle    bool // false: the blocks in order, epoch after epoch
	seed       uint64
}

// newOrder is the training order of a split of `blocks` blocks of seqLen tokens.
func newOrder(blocks int64, seqLen int, seed uint64) order {
	return order{blocks: blocks, spanBlocks: max(1, spanTokens/int64(seqLen)), groupSpans: spansPerGroup, shuffle: true, seed: seed}
}

// newSequence is the order of evaluation: the blocks from first to last.
func newSequence(blocks int64, seqLen int) order {
	return order{blocks: blocks, spanBlocks: max(1, spanTokens/int64(seqLen)), groupSpans: 1}
}

// groupID names a group.
type groupID struct{ epoch, group int64 }

func (o order) spans() int64  { return (o.blocks + o.spanBlocks - 1) / o.spanBlocks }
func (o order) groups() int64 { return (o.spans() + o.groupSpans - 1) / o.groupSpans }

// next returns the group after id; after the last one, the first of the next epoch.
func (o order) next(id groupID) groupID {
	if id.group+1 < o.groups() {
		return groupID{id.epoch, id.group + 1}
	}
	return groupID{id.epoch + 1, 0}
}

// locate returns the group of a sample and the sample's place among its blocks.
func (o order) locate(sample int64) (id groupID, place int64) {
	id.epoch = sample / o.blocks
	position := sample % o.blocks

	// All groups before the last have the same number of blocks, except the one with the short
	// span: the positions after it are `shortfall` lower than they would be.
	full := o.groupSpans * o.spanBlocks
	shortGroup := o.spanPlace(id.epoch, o.spans()-1) / o.groupSpans
	if position >= shortGroup*full+o.groupBlocks(groupID{id.epoch, shortGroup}) {
		position += o.shortfall()
	}
	id.group = position / full
	place = position - id.group*full
	if o.shuffle {
		place = int64(newPermutation(uint64(o.groupBlocks(id)), o.seed, streamBlocks, uint64(id.epoch), uint64(id.group)).apply(uint64(place)))
	}
	return id, place
}

// first returns the first sample of a group. The group consists of that and the following ones, as
// many as it has blocks.
func (o order) first(id groupID) int64 {
	position := id.group * o.groupSpans * o.spanBlocks
	if o.spanPlace(id.epoch, o.spans()-1)/o.groupSpans < id.group {
		position -= o.shortfall() // as in locate
	}
	return id.epoch*o.blocks + position
}

// groupSpanList returns the spans of a group. The short span, if among them, is the last, so the
// block at a place of the group is block place%spanBlocks of the span place/spanBlocks.
func (o order) groupSpanList(id groupID) []int64 {
	last := o.spans() - 1
	var list []int64
	hasLast := false
	for i := id.group * o.groupSpans; i < min((id.group+1)*o.groupSpans, o.spans()); i++ {
		if span := o.spanAt(id.epoch, i); span == last {
			hasLast = true
		} else {
			list = append(list, span)
		}
	}
	if hasLast {
		list = append(list, last)
	}
	return list
}

// spanRange returns the first block of a span and their number.
func (o order) spanRange(span int64) (first, n int64) {
	first = span * o.spanBlocks
	return first, min(o.spanBlocks, o.blocks-first)
}

// groupBlocks is the number of blocks in a group.
func (o order) groupBlocks(id groupID) int64 {
	first := id.group * o.groupSpans
	spans := min(o.groupSpans, o.spans()-first)
	n := spans * o.spanBlocks
	if place := o.spanPlace(id.epoch, o.spans()-1); place >= first && place < first+spans {
		n -= o.shortfall()
	}
	return n
}

// shortfall returns how many blocks the last span lacks.
func (o order) shortfall() int64 { return o.spans()*o.spanBlocks - o.blocks }

// spanAt returns the span at a place of an epoch, and spanPlace the place of a span.
func (o order) spanAt(epoch, place int64) int64 {
	if !o.shuffle {
		return place
	}
	return int64(o.spanPermutation(epoch).apply(uint64(place)))
}

func (o order) spanPlace(epoch, span int64) int64 {
	if !o.shuffle {
		return span
	}
	return int64(o.spanPermutation(epoch).invert(uint64(span)))
}

func (o order) spanPermutation(epoch int64) permutation {
	return newPermutation(uint64(o.spans()), o.seed, streamSpans, uint64(epoch))
}

// Streams keep the random numbers drawn from the seed apart: the permutations of spans and of
// blocks, and a mixture's phases.
const (
	streamSpans   = 1
	streamBlocks  = 2
	streamMixture = 3
)

const feistelRounds = 8

// permutation is a pseudo-random permutation of 0..n-1 computed in place: a balanced Feistel network over the
// smallest even number of bits that holds n, walked until it lands below n (format-preserving encryption with
// cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
type permutation struct {
	n    uint64
	half int // bits of each half
	keys [feistelRounds]uint64
}

// newPermutation keys a permutation with what it depends on.
func newPermutation(n uint64, key ...uint64) permutation {
	p := permutation{n: n, half: max(1, (bits.Len64(n-1)+1)/2)}
	state := uint64(0)
	for _, k := range key {
		state = mix64(state ^ mix64(k))
	}
	for i := range p.keys {
		state += 0x9e3779b97f4a7c15
		p.keys[i] = mix64(state)
	}
	return p
}

func (p permutation) apply(x uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		left, right := x>>p.half, x&mask
		for _, key := range p.keys {
			left, right = right, left^mix64(right^key)&mask
		}
		if x = left<<p.half | right; x < p.n {
			return x
		}
	}
}

func (p permutation) invert(x uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		left, right := x>>p.half, x&mask
		for i := feistelRounds - 1; i >= 0; i-- {
			left, right = right^mix64(left^p.keys[i])&mask, left
		}
		if x = left<<p.half | right; x < p.n {
			return x
		}
	}
}

// mix64 is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection whose output bits each depend
// on every input bit.
func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
