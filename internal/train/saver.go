package train

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/dist"
)

// saver writes checkpoints while training continues, one at a time, from a copy of the parameters
// and moments on the host. Each of several processes writes its share, and the first one makes a
// checkpoint from the shares.
type saver struct {
	dir   string
	place dist.Topology
	line  *dist.Line
	lock  *checkpoint.Run // of the first process
	keep  checkpoint.Config
	// sync flushes the metrics to disk. They are written before the checkpoint, so that a resumed
	// run has all of its metrics.
	sync func() error
	// watch is told about each disk operation.
	watch checkpoint.Watch

	snapshot snapshot
	underway chan saved // receives the outcome of the save; nil if there is none
	step     int64      // of the last save that was started; -1 before
	waited   bool       // training has waited for a save
}

// saved is the outcome of a save.
type saved struct {
	step  int64
	dir   string
	stall time.Duration // how long training waited for it
	err   error
	left  error // why older checkpoints could not be removed
}

// start writes the snapshot as the checkpoint of state in the background. Training has waited for
// stall so far.
func (w *saver) start(state checkpoint.State, stall time.Duration) {
	end := make(chan saved, 1)
	w.underway, w.step = end, state.Step
	go func() {
		dir, left, err := w.write(state)
		end <- saved{state.Step, dir, stall, err, left}
	}()
}

func (w *saver) write(state checkpoint.State) (dir string, left, err error) {
	if w.place.Rank > 0 {
		return "", nil, w.bring(state.Step)
	}
	if err := w.synced(); err != nil {
		return "", nil, err
	}
	var info checkpoint.Info
	if w.place.Single() {
		if err = w.snapshot.finite(); err == nil {
			info, err = w.lock.Save(state, w.snapshot.model, w.snapshot.moments)
		}
	} else {
		info, err = w.collect(state)
	}
	if err != nil {
		return "", nil, err
	}
	_, left = w.lock.Prune(w.keep.KeepLast, w.keep.KeepEvery)
	return info.Dir, left, nil
}

func (w *saver) synced() error {
	defer w.watch("syncing the metrics")()
	return w.sync()
}

// brought is what a process tells the first one about its share.
type brought struct {
	Share checkpoint.Share `json:"share"`
	Error string           `json:"error,omitempty"`
}

// bring writes this process's share and tells the first process. The first process decides whether
// it succeeded, and ends the run if not.
func (w *saver) bring(step int64) error {
	var b brought
	var err error
	if b.Share, err = w.share(step); err != nil {
		b.Error = err.Error()
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	_, err = w.line.Gather(text)
	return err
}

func (w *saver) share(step int64) (checkpoint.Share, error) {
	if err := w.snapshot.finite(); err != nil {
		return checkpoint.Share{}, err
	}
	return checkpoint.WriteShare(w.dir, step, w.place.Rank, w.place.Size, w.snapshot.model, w.snapshot.moments, w.watch)
}

// collect makes the started checkpoint from the shares of all processes.
func (w *saver) collect(state checkpoint.State) (checkpoint.Info, error) {
	own, err := w.share(state.Step)
	shares := []checkpoint.Share{own}
	// Also after an error: the others send their shares, and their next ones must not be mistaken
	// for these.
	all, lineErr := w.line.Gather(nil)
	if err == nil {
		err = lineErr
	}
	for rank := 1; rank < len(all) && err == nil; rank++ {
		var b brought
		if err = json.Unmarshal(all[rank], &b); err == nil && b.Error != "" {
			err = fmt.Errorf("process %d: %s", rank, b.Error)
		}
		shares = append(shares, b.Share)
	}
	if err != nil {
		if left := w.lock.Discard(state.Step); left != nil {
			err = fmt.Errorf("%w; removing what was written of it failed too: %v", err, left)
		}
		return checkpoint.Info{}, err
	}
	return w.lock.Finish(state, shares)
}

// ended returns the save that has ended since the last call, if any; with wait, the one in
// progress.
func (w *saver) ended(wait bool) (saved, bool) {
	if w == nil || w.underway == nil {
		return saved{}, false
	}
	if !wait {
		select {
		case v := <-w.underway:
			w.underway = nil
			return v, true
		default:
			return saved{}, false
		}
	}
	v := <-w.underway
	w.underway = nil
	return v, true
}
