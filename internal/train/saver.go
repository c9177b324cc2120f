package train

import (
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// saver writes checkpoints while training goes on, one at a time, from a copy of the
// parameters and moments on the host.
type saver struct {
	lock *checkpoint.Run
	keep checkpoint.Config
	// sync brings the metrics to the disk. They come before the checkpoint, so that a
	// resumed run has all of theirs.
	sync func() error

	snapshot snapshot
	underway chan saved // gets the save's end; nil while there is none
	step     int64      // of the save that is under way
}

// saved is how a save ended.
type saved struct {
	step  int64
	dir   string
	stall time.Duration // how long training waited for it
	err   error
}

// start writes the snapshot as the checkpoint of state in the background. Training waited
// for stall so far.
func (w *saver) start(state checkpoint.State, stall time.Duration) {
	end := make(chan saved, 1)
	w.underway, w.step = end, state.Step
	model, moments := w.snapshot.model, w.snapshot.moments
	go func() {
		dir, err := w.write(state, model, moments)
		end <- saved{state.Step, dir, stall, err}
	}()
}

func (w *saver) write(state checkpoint.State, model, moments []checkpoint.Tensor) (dir string, err error) {
	if err := w.sync(); err != nil {
		return "", err
	}
	info, err := w.lock.Save(state, model, moments)
	if err != nil {
		return "", err
	}
	_, err = w.lock.Prune(w.keep.KeepLast, w.keep.KeepEvery)
	return info.Dir, err
}

// ended is the save that has ended since the last call, if one has; with wait it is the
// one under way.
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
