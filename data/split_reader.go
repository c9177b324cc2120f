package data

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"
)

// splitReader is one split of one folder of shards, as blocks of tokens. The documents, each with
// its end-of-text token, form one stream; block i is its tokens i*T to i*T+T, T+1 of them. Adjacent
// blocks share a token, so each token except the stream's first is the target of one position. The
// rest at the end is in no block.
//
// It is safe for concurrent use. It keeps no file open.
type splitReader struct {
	dir      string
	split    Split
	manifest Manifest
	seqLen   int
	order    order
	index    []groupStart // of every row group in stream order
	tokens   int64
}

// groupStart is where a row group begins in the token stream.
type groupStart struct {
	token    int64
	shard    int32
	rowGroup int32
}

// openSplit reads and checks the footers of c's folder and, unless c.SkipVerify is set, the
// checksums. It returns nil if the folder has no such split.
func openSplit(ctx context.Context, c Config, split Split) (*splitReader, error) {
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
	d := &splitReader{dir: dir, split: split, manifest: m, seqLen: c.SeqLen}
	info := m.Split(split)
	if len(info.Shards) == 0 {
		return nil, nil
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
		if err := d.addShard(watching(ctx), i, s); err != nil {
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
func (d *splitReader) addShard(w Watch, i int, s Shard) error {
	defer w("reading " + filepath.Join(d.dir, s.File))()
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

// window is the group that rows are copied from. Samples are read in increasing order, so one is
// enough.
type window struct {
	id    groupID
	group *blockGroup
}

// row copies a sample out of the window. If it is in another group, load exchanges the window's
// group for that.
func (d *splitReader) row(w *window, load loadGroup, sample int64, dst []int32) error {
	id, place := d.order.locate(sample)
	if w.group == nil || w.id != id {
		group, err := load(id, w.group)
		if err != nil {
			w.group = nil
			return err
		}
		w.id, w.group = id, group
	}
	copy(dst, w.group.block(place, d.order.spanBlocks, d.seqLen))
	return nil
}

// loadGroup exchanges a group that is no longer needed, which may be nil, for another.
type loadGroup func(id groupID, old *blockGroup) (*blockGroup, error)

// loadNow decodes the group when it is requested.
func (d *splitReader) loadNow(id groupID, old *blockGroup) (*blockGroup, error) {
	if old == nil {
		old = &blockGroup{}
	}
	return old, d.load(context.Background(), id, old)
}

// blockGroup holds the tokens of a group's spans, one after the other. A span of b blocks takes
// b*T+1 tokens, and only the last is shorter than the others, so the position of a block's tokens
// can be computed. For a group that was loaded in part, starts holds where the blocks begin, by
// their place, and -1 for missing ones.
type blockGroup struct {
	tokens []int32
	starts []int
}

func (g *blockGroup) block(place, spanBlocks int64, seqLen int) []int32 {
	t := int64(seqLen)
	start := place/spanBlocks*(spanBlocks*t+1) + place%spanBlocks*t
	if g.starts != nil {
		start = int64(g.starts[place])
	}
	return g.tokens[start : start+t+1]
}

// load decodes the spans of a group into dst.
func (d *splitReader) load(ctx context.Context, id groupID, dst *blockGroup) error {
	files := openShards{split: d}
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

// loadPlaces is load for only the blocks at some places: row groups that contain nothing of them
// are not decoded.
func (d *splitReader) loadPlaces(ctx context.Context, id groupID, places []int64, dst *blockGroup) error {
	files := openShards{split: d}
	defer files.close()
	spans := d.order.groupSpanList(id)
	from := func(place int64) int64 {
		first, _ := d.order.spanRange(spans[place/d.order.spanBlocks])
		return (first + place%d.order.spanBlocks) * int64(d.seqLen)
	}
	// In stream order each row group is decoded once.
	slices.SortFunc(places, func(a, b int64) int { return cmp.Compare(from(a), from(b)) })
	width := d.seqLen + 1
	dst.tokens = slices.Grow(dst.tokens[:0], len(places)*width)
	dst.starts = slices.Grow(dst.starts[:0], int(d.order.groupBlocks(id)))[:d.order.groupBlocks(id)]
	for i := range dst.starts {
		dst.starts[i] = -1
	}
	for _, place := range places {
		dst.starts[place] = len(dst.tokens)
		begin := from(place)
		var err error
		if dst.tokens, err = d.appendTokens(ctx, &files, dst.tokens, begin, begin+int64(width)); err != nil {
			return err
		}
	}
	return nil
}

// appendTokens appends the tokens [from, to) of the stream to dst.
func (d *splitReader) appendTokens(ctx context.Context, files *openShards, dst []int32, from, to int64) ([]int32, error) {
	// The last row group that starts at or before from.
	for i := sort.Search(len(d.index), func(i int) bool { return d.index[i].token > from }) - 1; from < to; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := d.index[i]
		ids, err := files.tokens(ctx, i)
		if err != nil {
			return nil, err
		}
		end := min(to-at.token, int64(len(ids)))
		dst = append(dst, ids[from-at.token:end]...)
		from = at.token + int64(len(ids))
	}
	return dst, nil
}

// openShards keeps the shards of one group of spans open. Between groups none are open: their
// parsed footers would take memory that grows with the data.
type openShards struct {
	split   *splitReader
	files   []*os.File
	readers map[int32]*shardReader
	last    []int32 // the tokens of row group lastOf of the index, which may also contain the next ones requested
	lastOf  int
}

// tokens decodes row group i of the index.
func (o *openShards) tokens(ctx context.Context, i int) ([]int32, error) {
	if o.last != nil && o.lastOf == i {
		return o.last, nil
	}
	d := o.split
	at := d.index[i]
	reader, err := o.reader(at.shard)
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
	o.last, o.lastOf = ids, i
	return ids, nil
}

func (o *openShards) reader(shard int32) (*shardReader, error) {
	if r, ok := o.readers[shard]; ok {
		return r, nil
	}
	d := o.split
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

// groupEnd returns where row group i of the index ends in the token stream.
func (d *splitReader) groupEnd(i int) int64 {
	if i+1 < len(d.index) {
		return d.index[i+1].token
	}
	return d.tokens
}
