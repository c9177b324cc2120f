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

// Loader streams batches in order, decoding and packing them ahead of the training thread: one goroutine decodes
// the next group of spans while another packs batches from the present one.
type Loader struct {
	ds    *Dataset
	batch int

	ready chan packed
	free  chan []int32 // buffers for packed
	ctx   context.Context
	stop  context.CancelFunc
	work  sync.WaitGroup

	err error // the first from ready; later calls of Next repeat it
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
	first, err := firstSample(startStep, batch)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Loader{
		ds: ds, batch: batch,
		ready: make(chan packed, readAhead),
		free:  make(chan []int32, readAhead),
		ctx:   ctx, stop: stop,
	}
	for range readAhead {
		l.free <- make([]int32, batch*(ds.seqLen+1))
	}

	groups := make(chan decoded)
	spare := make(chan *blockGroup, 2) // one to pack from, one to decode into
	for range cap(spare) {
		spare <- &blockGroup{}
	}
	l.work.Go(func() { l.decode(ctx, first, groups, spare) })
	l.work.Go(func() { l.pack(ctx, first, groups, spare) })
	return l, nil
}

// Next copies the next batch into dst, (B, T+1) row-major, and returns how long it waited for it. After an error
// it returns that error again. It is for use by one goroutine.
func (l *Loader) Next(dst []int32) (time.Duration, error) {
	if l.err != nil {
		return 0, l.err
	}
	if err := l.ds.checkRows(0, l.batch, len(dst)); err != nil {
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

// decode sends the groups from that of the first sample on, in order.
func (l *Loader) decode(ctx context.Context, first int64, out chan<- decoded, spare <-chan *blockGroup) {
	for id, _ := l.ds.order.locate(first); ; id = l.ds.order.next(id) {
		d := decoded{id: id}
		select {
		case d.group = <-spare:
		case <-ctx.Done():
			return
		}
		d.err = l.ds.load(ctx, id, d.group)
		select {
		case out <- d:
		case <-ctx.Done():
			return
		}
		if d.err != nil {
			return
		}
	}
}

// pack sends the batches from the one of the first sample on, in order, and hands back each group that it is done
// with.
func (l *Loader) pack(ctx context.Context, first int64, in <-chan decoded, spare chan<- *blockGroup) {
	var w window
	load := func(id groupID, old *blockGroup) (*blockGroup, error) {
		if old != nil {
			spare <- old
		}
		select {
		case d := <-in:
			if d.err == nil && d.id != id {
				d.err = fmt.Errorf("data: group %v was decoded where %v comes next", d.id, id)
			}
			return d.group, d.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for ; ; first += int64(l.batch) {
		var p packed
		select {
		case p.tokens = <-l.free:
		case <-ctx.Done():
			return
		}
		p.err = l.ds.fill(&w, load, first, l.batch, p.tokens)
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
