package data

import (
	"context"
	"math"
	"slices"
	"testing"
)

// shuffledDataset returns a training split whose order has several groups of several spans.
func shuffledDataset(t testing.TB, seed uint64) *Dataset {
	t.Helper()
	c := testConfig(t, writeFiles(t, corpus(150)))
	c.Seed = seed
	mustPrepare(t, c)
	return smallWindow(mustOpen(t, c, Train))
}

// smallWindow makes spans of 3 blocks, in groups of 4.
func smallWindow(d *Dataset) *Dataset {
	d.parts[0].order.spanBlocks, d.parts[0].order.groupSpans = 3, 4
	return d
}

func row1(t testing.TB, d *Dataset, sample int64) []int32 {
	t.Helper()
	dst := make([]int32, d.SeqLen()+1)
	if err := d.Rows(sample, 1, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestEpochCoversEveryBlockOnce(t *testing.T) {
	d := shuffledDataset(t, 3407)
	tokens := stream(t, d)
	if d.parts[0].order.groups() < 3 || len(d.parts[0].manifest.Train.Shards) < 3 {
		t.Fatalf("%d groups and %d shards are too few for a test", d.parts[0].order.groups(), len(d.parts[0].manifest.Train.Shards))
	}
	if got, want := d.Blocks(), (int64(len(tokens))-1)/16; got != want {
		t.Fatalf("%d blocks in %d tokens, want %d", got, len(tokens), want)
	}
	if got, want := d.LeftOver(), int64(len(tokens))-1-16*d.Blocks(); got != want || got >= 16 {
		t.Errorf("%d tokens left over, want %d", got, want)
	}
	for epoch := range int64(2) {
		var got []int64
		for i := range d.Blocks() {
			r := row1(t, d, epoch*d.Blocks()+i)
			b := d.parts[0].order.blockOf(epoch*d.Blocks() + i)
			if !slices.Equal(r, tokens[b*16:b*16+17]) {
				t.Fatalf("sample %d of epoch %d is not block %d of the stream", i, epoch, b)
			}
			got = append(got, b)
		}
		slices.Sort(got)
		for i, b := range got {
			if b != int64(i) {
				t.Fatalf("epoch %d has no block %d", epoch, i)
			}
		}
	}
}

func TestBatchIsPure(t *testing.T) {
	const batch = 5
	d := shuffledDataset(t, 3407)
	steps := 2*d.Blocks()/batch + 3 // into the third epoch
	width := batch * (d.SeqLen() + 1)
	inOrder := make([][]int32, steps)
	for s := range inOrder {
		inOrder[s] = make([]int32, width)
		if err := d.Batch(int64(s), batch, inOrder[s]); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]int32, width)
	jumps := newPermutation(uint64(steps), 1)
	for i := range uint64(steps) {
		s := int64(jumps.apply(i))
		if err := d.Batch(s, batch, got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, inOrder[s]) {
			t.Fatalf("batch %d differs when read at random", s)
		}
	}
	// The same samples in other micro-batches.
	for s := range steps {
		for r := range int64(batch) {
			if got := row1(t, d, s*batch+r); !slices.Equal(got, inOrder[s][r*17:(r+1)*17]) {
				t.Fatalf("row %d of batch %d differs when read alone", r, s)
			}
		}
	}
	if other := shuffledDataset(t, 1); slices.Equal(row1(t, other, 0), row1(t, d, 0)) {
		t.Error("another seed begins with the same row")
	}
}

func TestRowsRefuses(t *testing.T) {
	d := shuffledDataset(t, 1)
	row := make([]int32, 17)
	checkError(t, d.Rows(-1, 1, row), "", "data: no 1 rows from sample -1")
	checkError(t, d.Rows(0, 0, nil), "", "data: no 0 rows from sample 0")
	checkError(t, d.Rows(math.MaxInt64, 1, row), "", "data: no 1 rows from sample 9223372036854775807")
	checkError(t, d.Rows(0, 2, make([]int32, 33)), "", "data: a batch of 2 rows has 34 tokens, the buffer has room for 33")
	checkError(t, d.Batch(math.MaxInt64/2, 3, row), "", "data: no batch of 3 rows at step 4611686018427387903")
	if err := d.Rows(math.MaxInt64-1, 1, row); err != nil {
		t.Error(err)
	}
}

func TestRowsAllocatesNothing(t *testing.T) {
	d := shuffledDataset(t, 1)
	dst := row1(t, d, 0)
	if n := testing.AllocsPerRun(100, func() { d.Rows(0, 1, dst) }); n > 0 {
		t.Errorf("%v allocations a batch from an open group", n)
	}
}

func TestValidationIsInOrder(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(150)))
	c.ValidationFraction = 0.4
	mustPrepare(t, c)
	d := smallWindow(mustOpen(t, c, Validation))
	d.parts[0].order.groupSpans = 1
	tokens := stream(t, d)
	n := int(d.Blocks())
	rows := make([]int32, n*17)
	if err := d.Rows(0, n, rows); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if !slices.Equal(rows[i*17:(i+1)*17], tokens[i*16:i*16+17]) {
			t.Fatalf("row %d is not block %d", i, i)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	c := testConfig(t, writeFiles(t, map[string]string{"a.txt": "twelve bytes"}))
	mustPrepare(t, c)

	open := func(edit func(*Config), split Split) error {
		c := c
		edit(&c)
		_, err := Open(context.Background(), c, split)
		return err
	}
	checkError(t, open(func(c *Config) { c.SeqLen = 13 }, Train), c.Shards,
		"data.seq_len: the train split of DIR has 13 tokens, one row of seq_len 13 needs 14: lower data.seq_len, or prepare more text")
	if err := open(func(c *Config) { c.SeqLen = 12 }, Train); err != nil {
		t.Error(err)
	}
	checkError(t, open(func(c *Config) {}, Validation), c.Shards,
		"data.shards: DIR has no validation split: prepare another folder, with a data.validation_fraction or data.text.validation that fills it")
	checkError(t, open(func(c *Config) { c.Shards += "-none" }, Train), c.Shards,
		"data.shards: no manifest.json in DIR-none: run `sambatrain data prepare` first, or choose another folder")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, c, Train); err != context.Canceled {
		t.Errorf("error is %v, want context.Canceled", err)
	}
}

func TestUnigramBitsPerByte(t *testing.T) {
	count := func(text string) []int64 {
		counts := make([]int64, 256)
		for i := range len(text) {
			counts[text[i]]++
		}
		return counts
	}
	m := Manifest{
		Train:      SplitInfo{Bytes: 4, ByteCounts: count("aaab")},
		Validation: SplitInfo{Bytes: 4, ByteCounts: count("aabc")},
	}
	got, ok := m.UnigramBitsPerByte()
	want := -(2*math.Log2(4.0/260) + math.Log2(2.0/260) + math.Log2(1.0/260)) / 4
	if !ok || !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("got %v, %v, want %v", got, ok, want)
	}
	m.Validation = SplitInfo{}
	if _, ok := m.UnigramBitsPerByte(); ok {
		t.Error("a figure without a validation split")
	}
}
