package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Dataset is one split of a folder of shards, as blocks of tokens. The documents, each with its end-of-text
// token, form one stream; block i is its tokens i*T to i*T+T, T+1 of them. Neighbours share a token, so each
// token but the stream's first is the target of one position. What is left at the end is in no block.
//
// It is safe for use by several goroutines at once. It keeps no file open.
type Dataset struct {
	dir      string
	split    Split
	manifest Manifest
	tok      Tokenizer
	seqLen   int
	order    order
	index    []groupStart // of every row group in stream order
	tokens   int64

	mu     sync.Mutex
	window window // of Rows
}

// groupStart is where a row group begins in the token stream.
type groupStart struct {
	token    int64
	shard    int32
	rowGroup int32
}

// Open reads and checks the shards' footers, and unless c.SkipVerify is set their checksums. The training split is
// shuffled by c.Seed, the validation split is in order.
func Open(ctx context.Context, c Config, split Split) (*Dataset, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	dir, err := expand("data.shards", c.Shards)
	if err != nil {
		return nil, err
	}
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	if err := c.checkTokenizer(dir, m); err != nil {
		return nil, err
	}
	tok, err := NewTokenizer(c.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("data.tokenizer: %w", err)
	}
	d := &Dataset{dir: dir, split: split, manifest: m, tok: tok, seqLen: c.SeqLen}
	info := m.Split(split)
	if len(info.Shards) == 0 {
		return nil, fmt.Errorf("data.shards: %s has no %s split: prepare another folder with a data.validation_fraction that fills it", dir, split)
	}
	if !c.SkipVerify {
		if err := verifyShards(ctx, dir, info.Shards); err != nil {
			return nil, err
		}
	}
	for i, s := range info.Shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := d.addShard(i, s); err != nil {
			return nil, err
		}
	}
	blocks := (d.tokens - 1) / int64(c.SeqLen)
	if blocks < 1 {
		return nil, fmt.Errorf("data.seq_len: the %s split of %s has %d tokens, one row of seq_len %d needs %d: lower data.seq_len, or prepare more text", split, dir, d.tokens, c.SeqLen, c.SeqLen+1)
	}
	d.order = newSequence(blocks, c.SeqLen)
	if split == Train {
		d.order = newOrder(blocks, c.SeqLen, c.Seed)
	}
	return d, nil
}

// addShard adds the row groups of the shard to the index.
func (d *Dataset) addShard(i int, s Shard) error {
	f, reader, err := s.openFile(d.dir, d.manifest.Tokenizer, d.split)
	if err != nil {
		return err
	}
	defer f.Close()
	for g, group := range reader.rowGroups {
		d.index = append(d.index, groupStart{token: d.tokens, shard: int32(i), rowGroup: int32(g)})
		d.tokens += group.tokens
	}
	return nil
}

// verifyShards compares checksums, several files at once.
func verifyShards(ctx context.Context, dir string, shards []Shard) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, s := range shards {
		g.Go(func() error { return s.verify(ctx, dir) })
	}
	return g.Wait()
}

// Tokenizer is the tokenizer of the shards.
func (d *Dataset) Tokenizer() Tokenizer { return d.tok }

// Manifest describes the folder of shards.
func (d *Dataset) Manifest() Manifest { return d.manifest }

// SeqLen is T.
func (d *Dataset) SeqLen() int { return d.seqLen }

// Tokens is the length of the split's stream, end-of-text tokens included.
func (d *Dataset) Tokens() int64 { return d.tokens }

// Blocks is the number of blocks in the split, and so of rows in an epoch.
func (d *Dataset) Blocks() int64 { return d.order.blocks }

// LeftOver is the number of tokens at the end of the stream that are no block's target.
func (d *Dataset) LeftOver() int64 { return d.tokens - 1 - d.order.blocks*int64(d.seqLen) }

// Batch fills dst, (B, T+1) row-major, with the rows of global batch step: samples step*B to step*B+B-1.
// The inputs of a row are its first T tokens, the targets its last T.
func (d *Dataset) Batch(step int64, batch int, dst []int32) error {
	first, err := firstSample(step, batch)
	if err != nil {
		return err
	}
	return d.Rows(first, batch, dst)
}

// firstSample is the first sample of a global batch.
func firstSample(step int64, batch int) (int64, error) {
	if batch < 1 || step < 0 || step > math.MaxInt64/int64(batch) {
		return 0, fmt.Errorf("data: no batch of %d rows at step %d", batch, step)
	}
	return step * int64(batch), nil
}

// Rows fills dst, (n, T+1) row-major, with n samples from the sample numbered first. Sample g is row
// g mod Blocks() of epoch g / Blocks(). It is quick where samples are near those of the call before; a Loader
// reads ahead besides.
func (d *Dataset) Rows(first int64, n int, dst []int32) error {
	if err := d.checkRows(first, n, len(dst)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	load := func(id groupID, old *blockGroup) (*blockGroup, error) {
		if old == nil {
			old = &blockGroup{}
		}
		return old, d.load(context.Background(), id, old)
	}
	return d.fill(&d.window, load, first, n, dst)
}

func (d *Dataset) checkRows(first int64, n, size int) error {
	if first < 0 || n < 1 || first > math.MaxInt64-int64(n) {
		return fmt.Errorf("data: no %d rows from sample %d", n, first)
	}
	if want := n * (d.seqLen + 1); size != want {
		return fmt.Errorf("data: a batch of %d rows has %d tokens, the buffer has room for %d", n, want, size)
	}
	return nil
}

// window is the group that rows are copied from. Samples are read in rising order, so one is enough.
type window struct {
	id    groupID
	group *blockGroup
}

// fill copies rows out of the window. Where that is another group, load trades it for the right one.
func (d *Dataset) fill(w *window, load func(id groupID, old *blockGroup) (*blockGroup, error), first int64, n int, dst []int32) error {
	width := d.seqLen + 1
	for r := range n {
		id, place := d.order.locate(first + int64(r))
		if w.group == nil || w.id != id {
			group, err := load(id, w.group)
			if err != nil {
				w.group = nil
				return err
			}
			w.id, w.group = id, group
		}
		copy(dst[r*width:(r+1)*width], w.group.block(place, d.order.spanBlocks, d.seqLen))
	}
	return nil
}

// blockGroup holds the tokens of a group's spans, one after the other. A span of b blocks takes b*T+1 tokens, and
// only the last is shorter than the others, so a block's tokens are found by arithmetic.
type blockGroup struct {
	tokens []int32
}

func (g *blockGroup) block(place, spanBlocks int64, seqLen int) []int32 {
	t := int64(seqLen)
	start := place/spanBlocks*(spanBlocks*t+1) + place%spanBlocks*t
	return g.tokens[start : start+t+1]
}

// load decodes the spans of a group into dst.
func (d *Dataset) load(ctx context.Context, id groupID, dst *blockGroup) error {
	files := openShards{dataset: d}
	defer files.close()
	dst.tokens = dst.tokens[:0]
	for _, span := range d.order.groupSpanList(id) {
		first, n := d.order.spanRange(span)
		from := first * int64(d.seqLen)
		var err error
		if dst.tokens, err = d.appendTokens(ctx, &files, dst.tokens, from, from+n*int64(d.seqLen)+1); err != nil {
			return err
		}
	}
	return nil
}

// appendTokens appends the tokens [from, to) of the stream to dst.
func (d *Dataset) appendTokens(ctx context.Context, files *openShards, dst []int32, from, to int64) ([]int32, error) {
	// The last row group that starts at or before from.
	for i := sort.Search(len(d.index), func(i int) bool { return d.index[i].token > from }) - 1; from < to; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := d.index[i]
		reader, err := files.reader(at.shard)
		if err != nil {
			return nil, err
		}
		ids, err := reader.tokens(ctx, int(at.rowGroup))
		if err == nil && int64(len(ids)) != d.groupEnd(i)-at.token {
			err = errors.New("has other tokens than when the run began")
		}
		if err != nil {
			path := filepath.Join(d.dir, d.manifest.Split(d.split).Shards[at.shard].File)
			return nil, shardError(path, fmt.Errorf("row group %d: %w", at.rowGroup, err))
		}
		end := min(to-at.token, int64(len(ids)))
		dst = append(dst, ids[from-at.token:end]...)
		from = at.token + int64(len(ids))
	}
	return dst, nil
}

// openShards keeps the shards of one group of spans open. Between groups none are: their parsed footers would take
// memory that grows with the data.
type openShards struct {
	dataset *Dataset
	files   []*os.File
	readers map[int32]*shardReader
}

func (o *openShards) reader(shard int32) (*shardReader, error) {
	if r, ok := o.readers[shard]; ok {
		return r, nil
	}
	d := o.dataset
	f, r, err := d.manifest.Split(d.split).Shards[shard].openFile(d.dir, d.manifest.Tokenizer, d.split)
	if err != nil {
		return nil, err
	}
	if o.readers == nil {
		o.readers = map[int32]*shardReader{}
	}
	o.readers[shard] = r
	o.files = append(o.files, f)
	return r, nil
}

func (o *openShards) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// groupEnd is where row group i of the index ends in the token stream.
func (d *Dataset) groupEnd(i int) int64 {
	if i+1 < len(d.index) {
		return d.index[i+1].token
	}
	return d.tokens
}
