package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
)

// share returns the share of process rank of size in a list of tensors: of all of them
// concatenated, every size'th run of 4 elements.
func share(list []Tensor, rank, size int) []Tensor {
	const run = 4
	var own []Tensor
	at := 0
	for _, t := range list {
		for from := 0; from < len(t.Data); {
			to := min(len(t.Data), from+run-(at+from)%run)
			if (at+from)/run%size == rank {
				own = append(own, Tensor{Name: t.Name, Shape: t.Shape, Data: t.Data[from:to], From: from})
			}
			from = to
		}
		at += len(t.Data)
	}
	return own
}

// saveShares saves step 1 as size processes do, except those in but.
func saveShares(t *testing.T, r *Run, size int, but ...int) (Info, error) {
	t.Helper()
	if err := r.Begin(1); err != nil {
		t.Fatal(err)
	}
	model, optimizer := tensors(1)
	var shares []Share
	for rank := range size {
		if slices.Contains(but, rank) {
			continue
		}
		s, err := WriteShare(r.dir, 1, rank, size, share(model, rank, size), share(optimizer, rank, size), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var sent Share
		if err := json.Unmarshal(text, &sent); err != nil {
			t.Fatal(err)
		}
		shares = append(shares, sent)
	}
	return r.Finish(state(1), shares)
}

// TestShares: what several processes wrote is read like what one wrote, and each of its files
// matters.
func TestShares(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5} {
		dir, other := t.TempDir(), t.TempDir()
		r := lock(t, dir)
		info, err := saveShares(t, r, size)
		if err != nil {
			t.Fatal(err)
		}
		c := newest(t, dir)
		holds(t, c, 1)
		save(t, lock(t, other), 1, 1)
		if d, err := Diff(c, newest(t, other), nil); err != nil || !d.Same || d.Equal != 12 {
			t.Errorf("%d processes: %+v, %v", size, d, err)
		}
		ranges(t, c)
		for _, f := range c.files {
			path := filepath.Join(info.Dir, f.Name)
			flip(t, path, int(f.Size)-1, 2)
			wantError(t, Verify(info.Dir), f.Name)
			flip(t, path, int(f.Size)-1, 2)
		}
		// A later save of a single process replaces it.
		save(t, r, 1, 2)
		holds(t, newest(t, dir), 2)
	}
}

// ranges reads every range of every tensor, whatever pieces it is stored in.
func ranges(t *testing.T, c *Checkpoint) {
	t.Helper()
	model, optimizer := tensors(1)
	err := c.ReadEach(model, optimizer, func(want Tensor, read func(from int, dst []float32) error) error {
		for from := range want.Data {
			for to := from; to <= min(from+9, len(want.Data)); to++ {
				got := make([]float32, to-from)
				if err := read(from, got); err != nil {
					return err
				}
				if !slices.EqualFunc(got, want.Data[from:to], func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
					t.Errorf("%s[%d:%d] is %v, want %v", want.Name, from, to, got, want.Data[from:to])
				}
			}
		}
		wantError(t, read(1, make([]float32, len(want.Data))), "tensor", fmt.Sprintf("has no %d elements from 1 on", len(want.Data)))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSharesIncomplete: a checkpoint to which a process contributed nothing, or that nobody
// finished, doesn't count.
func TestSharesIncomplete(t *testing.T) {
	dir := t.TempDir()
	r := lock(t, dir)
	save(t, r, 0, 3)
	_, err := saveShares(t, r, 3, 1)
	wantError(t, err, "save checkpoint of step 1", "are in no file")
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	if err := r.Begin(1); err != nil {
		t.Fatal(err)
	}
	model, optimizer := tensors(1)
	if _, err := WriteShare(dir, 1, 0, 2, share(model, 0, 2), share(optimizer, 0, 2), nil); err != nil {
		t.Fatal(err)
	}
	if c := newest(t, dir); c.Step != 0 {
		t.Errorf("step %d is there before it is finished", c.Step)
	}
	if err := r.Discard(1); err != nil {
		t.Fatal(err)
	}
	if err := r.Begin(1); err != nil {
		t.Fatal(err)
	}
	r.Unlock()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Unlock()
	if left := leftovers(t, dir); len(left) > 0 || len(again.Recovered) != 1 {
		t.Errorf("%q are left, recovered %q", left, again.Recovered)
	}
}

// TestPiecesRefused: files whose pieces don't add up to a tensor.
func TestPiecesRefused(t *testing.T) {
	whole := Tensor{Name: "a", Shape: []int{2, 3}, Data: make([]float32, 6)}
	cut := func(from, to int) Tensor {
		return Tensor{Name: "a", Shape: []int{2, 3}, Data: whole.Data[from:to], From: from}
	}
	for name, c := range map[string]struct {
		lists [][]Tensor
		shape []int
		want  string
	}{
		"gap":         {[][]Tensor{{cut(0, 2)}, {cut(3, 6)}}, []int{2, 3}, "elements 2 to 3 are in no file"},
		"no end":      {[][]Tensor{{cut(0, 2)}, {cut(2, 5)}}, []int{2, 3}, "elements 5 to 6 are in no file"},
		"overlap":     {[][]Tensor{{cut(0, 4)}, {cut(3, 6)}}, []int{2, 3}, "element 3 is in two files"},
		"other shape": {[][]Tensor{{cut(0, 4)}, {cut(4, 6)}}, []int{4}, "there are no elements 4 to 6 of 4"},
		"twice":       {[][]Tensor{{cut(0, 4)}, {cut(4, 6), whole}}, []int{2, 3}, "is stored both whole and in pieces"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var files []fileRecord
			for i, list := range c.lists {
				s, err := writeShare(noSyncFS{}, dir, "-"+string(rune('a'+i)), maxFileBytes, list, nil)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, s.Files...)
			}
			_, err := openTensors(nil, dir, partModel, files, map[string][]int{"a": c.shape})
			wantError(t, err, dir+`: model tensor "a": `, c.want)
		})
	}
}

func TestPieceNames(t *testing.T) {
	if name, from, to, ok := parsePiece(pieceName("m[0].w", 12, 20)); name != "m[0].w" || from != 12 || to != 20 || !ok {
		t.Error(name, from, to, ok)
	}
	for _, bad := range []string{"", "a", "a[]", "a[1]", "a[1:2", "a[01:2]", "a[1:+2]", "a[1:2]]"} {
		if _, _, _, ok := parsePiece(bad); ok {
			t.Errorf("%q is taken for a piece", bad)
		}
	}
}
