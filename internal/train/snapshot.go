package train

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
)

// savedRegions are the regions of an engine's memory in a checkpoint, with the prefixes of their
// tensor names.
var savedRegions = []struct {
	region graph.Region
	prefix string
}{{graph.Params, ""}, {graph.ExpAvg, checkpoint.ExpAvgPrefix}, {graph.ExpAvgSq, checkpoint.ExpAvgSqPrefix}}

// snapshot is a copy on the host of what this process writes of a checkpoint: all of it if it
// trains alone, otherwise its pieces of what is sharded, and its share of the tensors that all
// processes have.
type snapshot struct {
	model, moments []checkpoint.Tensor
	copies         []copied
}

// copied is a run of numbers in a region, and their destination.
type copied struct {
	region graph.Region
	at     int
	to     []float32
}

// Snapshot copies to the host the parameters and moments that this process writes.
func (e *Engine) Snapshot() (model, moments []checkpoint.Tensor, err error) {
	var s snapshot
	err = e.snapshotTo(&s)
	return s.model, s.moments, err
}

// errSpoilt is for a tensor that contains a NaN or infinity.
var errSpoilt = errors.New("training has diverged")

// finite rejects NaNs and infinities. A checkpoint of them would be useless, and good ones would be
// removed for it.
func (s *snapshot) finite() error {
	if err := checkpoint.Finite(slices.Concat(s.model, s.moments)); err != nil {
		return fmt.Errorf("%w, %w", errSpoilt, err)
	}
	return nil
}

// snapshotTo is Snapshot into memory that is allocated on first use.
func (e *Engine) snapshotTo(s *snapshot) error {
	if s.copies == nil {
		e.layOut(s)
	}
	for _, c := range s.copies {
		if err := e.mem.Read(c.region, c.at, c.to); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) layOut(s *snapshot) {
	for _, r := range savedRegions {
		list := &s.moments
		if r.region == graph.Params {
			list = &s.model
		}
		e.held(r.region, func(i, from, n, at int) {
			p := e.params[i]
			t := checkpoint.Tensor{Name: r.prefix + p.Name, Shape: p.Shape, From: from, Data: make([]float32, n)}
			*list = append(*list, t)
			s.copies = append(s.copies, copied{r.region, at, t.Data})
		})
	}
}

// held calls f for what this process writes of region r: n elements of the tensor of parameter i,
// starting with element `from`, which are at `at` in its memory.
func (e *Engine) held(r graph.Region, f func(i, from, n, at int)) {
	if e.sharded(r) {
		e.shard.Pieces(func(at, local, n int) {
			e.overlaps(at, n, func(i, from, n, behind int) { f(i, from, n, local+behind) })
		})
		return
	}
	// Whole tensors, with about the same number of bytes for each process.
	total, before := 0, 0
	for _, p := range e.params {
		total += p.Shape.Size()
	}
	for i, p := range e.params {
		if before*e.Processes()/max(total, 1) == e.rank() {
			f(i, 0, p.Shape.Size(), p.Offset)
		}
		before += p.Shape.Size()
	}
}

// overlaps calls f for each parameter that overlaps elements [at, at+n) of the flat layout: with n
// elements starting at element `from`, at an offset of `behind` from at.
func (e *Engine) overlaps(at, n int, f func(i, from, n, behind int)) {
	for i, p := range e.params {
		first, last := max(at, p.Offset), min(at+n, p.Offset+p.Shape.Size())
		if first < last {
			f(i, first-p.Offset, last-first, first-at)
		}
	}
}

// Restore loads parameters and moments from a checkpoint, whatever processes wrote it.
func (e *Engine) Restore(c *checkpoint.Checkpoint) error {
	first, second := described(e.params, checkpoint.ExpAvgPrefix), described(e.params, checkpoint.ExpAvgSqPrefix)
	return e.load(c, described(e.params, ""), slices.Concat(first, second))
}

// LoadParameters loads only the parameters.
func (e *Engine) LoadParameters(c *checkpoint.Checkpoint) error {
	return e.load(c, described(e.params, ""), nil)
}

func (e *Engine) load(c *checkpoint.Checkpoint, model, moments []checkpoint.Tensor) error {
	type place struct {
		region graph.Region
		param  int
	}
	places := map[string]place{}
	for _, r := range savedRegions {
		for i, p := range e.params {
			places[r.prefix+p.Name] = place{r.region, i}
		}
	}
	var room []float32
	err := c.ReadEach(model, moments, func(t checkpoint.Tensor, read func(from int, dst []float32) error) error {
		to := places[t.Name]
		p := e.params[to.param]
		return e.own(to.region, p.Offset, p.Shape.Size(), func(from, at, n int) error {
			room = slices.Grow(room[:0], n)[:n]
			if err := read(from, room); err != nil {
				return err
			}
			return e.mem.Write(to.region, at, room)
		})
	})
	if err != nil {
		return err
	}
	return e.WeightsWritten()
}

// write copies data, at position `at` of the flat layout, to this process's part of it.
func (e *Engine) write(r graph.Region, at int, data []float32) error {
	return e.own(r, at, len(data), func(from, to, n int) error { return e.mem.Write(r, to, data[from:from+n]) })
}

// own calls f for this process's part of region r's elements [at, at+n) of the flat layout: n of
// them starting at `from`, relative to at, and their position in its memory.
func (e *Engine) own(r graph.Region, at, n int, f func(from, to, n int) error) error {
	if !e.sharded(r) {
		return f(0, at, n)
	}
	var errs []error
	e.shard.Pieces(func(piece, local, length int) {
		if first, last := max(piece, at), min(piece+length, at+n); first < last {
			errs = append(errs, f(first-at, local+first-piece, last-first))
		}
	})
	return errors.Join(errs...)
}

// described returns the tensors of all parameters, named prefix and the parameter, without data.
func described(params []graph.ParamSlot, prefix string) []checkpoint.Tensor {
	list := make([]checkpoint.Tensor, len(params))
	for i, p := range params {
		list[i] = checkpoint.Tensor{Name: prefix + p.Name, Shape: p.Shape}
	}
	return list
}

// hostTensors returns described tensors with memory on the host.
func hostTensors(params []graph.ParamSlot, prefix string) []checkpoint.Tensor {
	list := described(params, prefix)
	for i := range list {
		list[i].Data = make([]float32, params[i].Shape.Size())
	}
	return list
}

// writeTensors copies a tensor for each parameter from the host to a region.
func writeTensors(mem graph.Memory, r graph.Region, params []graph.ParamSlot, list []checkpoint.Tensor) error {
	for i, t := range list {
		if err := mem.Write(r, params[i].Offset, t.Data); err != nil {
			return err
		}
	}
	return nil
}
