package data

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestShareDecodesItsOwn: a process doesn't need row groups without any of its rows, so all of
// those may be damaged; one that has all rows needs all of them.
func TestShareDecodesItsOwn(t *testing.T) {
	const rank, batch, steps = 3, 64, 10
	d := shuffledDataset(t, 3407)
	p := d.parts[0]
	width := int64(d.SeqLen() + 1)
	want := make([][]int32, steps)
	needed := map[int]bool{}
	for s := range int64(steps) {
		sample := s*batch + rank
		want[s] = row1(t, d, sample)
		id, place := p.order.locate(sample)
		first, _ := p.order.spanRange(p.order.groupSpanList(id)[place/p.order.spanBlocks])
		from := (first + place%p.order.spanBlocks) * int64(d.SeqLen())
		for i := range p.index {
			if p.index[i].token < from+width && p.groupEnd(i) > from {
				needed[i] = true
			}
		}
	}
	if 2*len(needed) > len(p.index) {
		t.Fatalf("%d of %d row groups are needed, which shows little", len(needed), len(p.index))
	}
	for i, g := range p.index {
		if !needed[i] {
			damage(t, p, g)
		}
	}
	got := make([]int32, width)
	l, err := NewShareLoader(d, Share{rank, batch}, batch, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for s := range want {
		if _, err := l.Next(got); err != nil {
			t.Fatalf("step %d: %v", s, err)
		}
		if !slices.Equal(got, want[s]) {
			t.Fatalf("step %d: other tokens", s)
		}
	}
	all, err := NewLoader(d, batch, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if _, err := all.Next(make([]int32, batch*width)); err == nil {
		t.Error("a process that has all rows does not see the damage")
	}
}

// damage overwrites the pages of a row group.
func damage(t *testing.T, p *splitReader, g groupStart) {
	t.Helper()
	shard := p.manifest.Train.Shards[g.shard]
	f, reader, err := shard.openFile(p.dir, p.manifest.Tokenizer, Train)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := os.OpenFile(filepath.Join(p.dir, shard.File), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	meta := reader.parquet.RowGroup(int(g.rowGroup)).MetaData()
	for c := range meta.NumColumns() {
		chunk, err := meta.ColumnChunk(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.WriteAt(make([]byte, chunk.TotalCompressedSize()), chunk.DataPageOffset()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSampleInvertsLocate: the samples of each part, and of each group, in order.
func TestSampleInvertsLocate(t *testing.T) {
	for _, weights := range [][]float64{{1}, {1, 1}, {0.001, 0.3, 5, 0.02}} {
		m := byWeight(weights, 7)
		next := make([]int64, len(weights))
		for sample := range int64(20_000) {
			part, local := m.locate(sample)
			if local != next[part] || m.sample(part, local) != sample {
				t.Fatalf("%v: sample %d is %d of part %d, and back %d", weights, sample, local, part, m.sample(part, local))
			}
			next[part]++
		}
	}
	for _, o := range []order{
		{blocks: 50, spanBlocks: 3, groupSpans: 4, shuffle: true, seed: 1},
		{blocks: 48, spanBlocks: 3, groupSpans: 4, shuffle: true, seed: 2},
		{blocks: 50, spanBlocks: 3, groupSpans: 1},
	} {
		sample := int64(0)
		for id := (groupID{}); id.epoch < 4; id = o.next(id) {
			if got := o.first(id); got != sample {
				t.Fatalf("%+v: group %v begins with sample %d, want %d", o, id, got, sample)
			}
			for end := sample + o.groupBlocks(id); sample < end; sample++ {
				if got, _ := o.locate(sample); got != id {
					t.Fatalf("%+v: sample %d is in group %v, want %v", o, sample, got, id)
				}
			}
		}
	}
}
