package data

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// readAhead is the number of finished batches that wait for the training thread.
const readAhead = 4

// Share is the part of each global batch that one of several processes trains on: of B rows those
// from Rank*B/Size to (Rank+1)*B/Size - 1.
type Share struct {
	Rank, Size int
}

// Loader streams batches in order, decoding and packing them ahead of the training thread: for each
// part of the dataset one goroutine decodes the next group of spans, while another packs batches
// from the current ones.
type Loader struct {
	ds   *Dataset
	rows int   // rows of a batch on this process
	step int64 // samples from a batch's first row here to that of the next batch

	ready chan packed
	free  chan []int32 // buffers for packed
	ctx   context.Context
	stop  context.CancelFunc
	work  sync.WaitGroup

	err error // the first error from ready; later calls of Next repeat it
}

// packed is a batch, or the error that ended packing.
type packed struct {
	tokens []int32
	err    error
}

// decoded is a group of spans, or the error that ended decoding.
type decoded struct {
	id    groupID
	group *blockGroup
	err   error
}

// NewLoader starts reading at global batch startStep. Close it when done.
func NewLoader(ds *Dataset, batch int, startStep int64) (*Loader, error) {
	return NewShareLoader(ds, Share{0, 1}, batch, startStep)
}

// NewShareLoader is NewLoader for one of several processes: batches of batch/share.Size rows.
func NewShareLoader(ds *Dataset, share Share, batch int, startStep int64) (*Loader, error) {
	first, err := firstSample(startStep, batch)
	if err != nil {
		return nil, err
	}
	if share.Size < 1 || share.Rank < 0 || share.Rank >= share.Size || batch%share.Size != 0 {
		return nil, fmt.Errorf("data: a batch of %d rows has no share %d of %d", batch, share.Rank, share.Size)
	}
	rows := batch / share.Size
	first += int64(share.Rank * rows)
	ctx, stop := context.WithCancel(context.Background())
	l := &Loader{
		ds: ds, rows: rows, step: int64(batch),
		ready: make(chan packed, readAhead),
		free:  make(chan []int32, readAhead),
		ctx:   ctx, stop: stop,
	}
	for range readAhead {
		l.free <- make([]int32, rows*(ds.seqLen+1))
	}
	feeds := make([]feed, len(ds.parts))
	for i, p := range ds.parts {
		own := owner{mix: ds.mix, part: i, first: first, batch: int64(batch), rows: int64(rows), rank: int64(share.Rank)}
		f := feed{split: p, own: own, groups: make(chan decoded), spare: make(chan *blockGroup, 2)}
		for range cap(f.spare) { // one to pack from, one to decode into
			f.spare <- &blockGroup{}
		}
		feeds[i] = f
		l.work.Go(func() { f.decode(ctx) })
	}
	l.work.Go(func() { l.pack(ctx, first, feeds) })
	return l, nil
}

// Next copies the next batch, or this process's share of it, into dst, (rows, T+1) row-major, and
// returns how long it waited for it. After an error it returns that error again. It must be used by
// one goroutine only.
func (l *Loader) Next(dst []int32) (time.Duration, error) {
	if l.err != nil {
		return 0, l.err
	}
	if err := l.ds.checkRows(0, l.rows, len(dst)); err != nil {
		return 0, err
	}
	begin := time.Now()
	var p packed
	select {
	case p = <-l.ready:
	case <-l.ctx.Done():
	}
	if l.ctx.Err() != nil {
		p.err = errors.New("data: the loader is closed")
	}
	wait := time.Since(begin)
	if p.err != nil {
		l.err = p.err
		return wait, p.err
	}
	copy(dst, p.tokens)
	l.free <- p.tokens
	return wait, nil
}

// Close stops reading ahead and waits until that has ended. It may be called more than once.
func (l *Loader) Close() {
	l.stop()
	l.work.Wait()
}

// feed is the stream of one part's groups.
type feed struct {
	split  *splitReader
	own    owner
	window window
	groups chan decoded
	spare  chan *blockGroup
}

// owner determines which samples of a part this process trains on.
type owner struct {
	mix         mixture
	part        int
	first       int64 // the first of all samples that it trains on
	batch, rows int64 // rows of a whole batch, and rows that it has
	rank        int64
}

// has reports whether a sample of the part is one of them.
func (o owner) has(local int64) bool {
	sample := o.mix.sample(o.part, local)
	return sample >= o.first && sample%o.batch/o.rows == o.rank
}

// places returns the positions of a group's blocks that belong to this process; whole means that
// all of them may.
func (f *feed) places(ctx context.Context, id groupID) (list []int64, whole bool) {
	if f.own.rows == f.own.batch {
		return nil, true
	}
	order := f.split.order
	first := order.first(id)
	for sample := first; sample < first+order.groupBlocks(id) && ctx.Err() == nil; sample++ {
		if f.own.has(sample) {
			_, place := order.locate(sample)
			list = append(list, place)
		}
	}
	return list, false
}

// decode sends the groups that contain rows of this process, in order, with the blocks of these
// rows.
func (f *feed) decode(ctx context.Context) {
	first := f.own.mix.count(f.own.part, f.own.first)
	for id, _ := f.split.order.locate(first); ctx.Err() == nil; id = f.split.order.next(id) {
		places, whole := f.places(ctx, id)
		if !whole && len(places) == 0 {
			continue
		}
		d := decoded{id: id}
		select {
		case d.group = <-f.spare:
		case <-ctx.Done():
			return
		}
		if whole {
			d.err = f.split.load(ctx, id, d.group)
		} else {
			d.err = f.split.loadPlaces(ctx, id, places, d.group)
		}
		select {
		case f.groups <- d:
		case <-ctx.Done():
			return
		}
		if d.err != nil {
			return
		}
	}
}

// load exchanges the window's group for the one with the id.
func (f *feed) load(ctx context.Context, id groupID, old *blockGroup) (*blockGroup, error) {
	if old != nil {
		f.spare <- old
	}
	for {
		select {
		case d := <-f.groups:
			if d.err != nil || d.id == id {
				return d.group, d.err
			}
			f.spare <- d.group
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pack sends the batches in order, starting at the one with the first sample.
func (l *Loader) pack(ctx context.Context, first int64, feeds []feed) {
	for ; ; first += l.step {
		var p packed
		select {
		case p.tokens = <-l.free:
		case <-ctx.Done():
			return
		}
		p.err = l.fill(ctx, feeds, first, p.tokens)
		select {
		case l.ready <- p:
		case <-ctx.Done():
			return
		}
		if p.err != nil {
			return
		}
	}
}

func (l *Loader) fill(ctx context.Context, feeds []feed, first int64, dst []int32) error {
	if l.ds.generated != nil {
		return l.ds.Rows(first, l.rows, dst)
	}
	width := l.ds.seqLen + 1
	for r := range l.rows {
		part, sample := l.ds.mix.locate(first + int64(r))
		f := &feeds[part]
		load := func(id groupID, old *blockGroup) (*blockGroup, error) { return f.load(ctx, id, old) }
		if err := f.split.row(&f.window, load, sample, dst[r*width:(r+1)*width]); err != nil {
			return err
		}
	}
	return nil
}
