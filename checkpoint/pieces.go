package checkpoint

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

// Piece is a run of a tensor's elements, From to To in row-major order, that was written by one of
// several processes. In its file it is the one-dimensional tensor NAME[FROM:TO].
type Piece struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"` // of the whole tensor
	From  int    `json:"from"`
	To    int    `json:"to"`
}

func pieceName(name string, from, to int) string { return fmt.Sprintf("%s[%d:%d]", name, from, to) }

// parsePiece inverts pieceName and rejects any other spelling.
func parsePiece(entry string) (name string, from, to int, ok bool) {
	at := strings.LastIndexByte(entry, '[')
	if at < 0 {
		return "", 0, 0, false
	}
	first, last, _ := strings.Cut(strings.TrimSuffix(entry[at+1:], "]"), ":")
	from, err := strconv.Atoi(first)
	if err != nil {
		return "", 0, 0, false
	}
	to, err = strconv.Atoi(last)
	return entry[:at], from, to, err == nil && pieceName(entry[:at], from, to) == entry
}

// elements returns the number of elements of a shape.
func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// covers sorts the pieces of one tensor of n elements and reports errors in them: each element must
// be in exactly one piece.
func covers(list []Piece, n int) error {
	slices.SortFunc(list, func(a, b Piece) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	at := 0
	for _, p := range list {
		switch {
		case p.From > at:
			return fmt.Errorf("elements %d to %d are in no file", at, p.From)
		case p.From < at:
			return fmt.Errorf("element %d is in two files", p.From)
		case p.To <= p.From || p.To > n:
			return fmt.Errorf("there are no elements %d to %d of %d", p.From, p.To, n)
		}
		at = p.To
	}
	if at < n {
		return fmt.Errorf("elements %d to %d are in no file", at, n)
	}
	return nil
}

// Tensors reads the tensors of one part of a checkpoint, each as a whole, whatever files and pieces
// it is stored in.
type Tensors struct {
	dir, part string

	set    *safetensors.Set
	whole  map[string]safetensors.Entry
	pieces map[string][]Piece // of the tensors that are stored in pieces, in order
}

// openTensors opens a part's files in dir. shapes are those of the tensors that are stored in pieces.
func openTensors(w Watch, dir, part string, files []fileRecord, shapes map[string][]int) (*Tensors, error) {
	defer w.reads("the " + part + " of " + dir)()
	var paths []string
	for _, f := range files {
		if f.Part == part {
			paths = append(paths, filepath.Join(dir, f.Name))
		}
	}
	set, err := safetensors.OpenSet(paths...)
	if err != nil {
		return nil, err
	}
	t := &Tensors{dir: dir, part: part, set: set, whole: map[string]safetensors.Entry{}, pieces: map[string][]Piece{}}
	if err := t.join(shapes); err != nil {
		set.Close()
		return nil, fmt.Errorf("%s: %s %w", dir, part, err)
	}
	return t, nil
}

// join finds the tensors that are stored whole, and the pieces of the others.
func (t *Tensors) join(shapes map[string][]int) error {
	for _, e := range t.set.Entries() {
		if e.DType != safetensors.F32 {
			return fmt.Errorf("tensor %q: dtype is %s, want F32", e.Name, e.DType)
		}
		name, from, to, ok := parsePiece(e.Name)
		shape, inPieces := shapes[name]
		if !ok || !inPieces {
			t.whole[e.Name] = e
			continue
		}
		if !slices.Equal(e.Shape, []int{to - from}) {
			return fmt.Errorf("tensor %q: shape is %v, want [%d]", e.Name, e.Shape, to-from)
		}
		t.pieces[name] = append(t.pieces[name], Piece{Name: name, Shape: shape, From: from, To: to})
	}
	for _, name := range slices.Sorted(maps.Keys(t.pieces)) {
		if err := covers(t.pieces[name], elements(shapes[name])); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if _, ok := t.whole[name]; ok {
			return fmt.Errorf("tensor %q: is stored both whole and in pieces", name)
		}
		t.whole[name] = safetensors.Entry{Name: name, DType: safetensors.F32, Shape: shapes[name]}
	}
	return nil
}

// Close closes all files.
func (t *Tensors) Close() error { return t.set.Close() }

// Entries lists all tensors by name.
func (t *Tensors) Entries() []safetensors.Entry {
	list := make([]safetensors.Entry, 0, len(t.whole))
	for _, e := range t.whole {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b safetensors.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Entry finds a tensor by name.
func (t *Tensors) Entry(name string) (safetensors.Entry, bool) {
	e, ok := t.whole[name]
	return e, ok
}

// Match returns an error that names a tensor that is wanted and missing, has another shape, or is
// not wanted.
func (t *Tensors) Match(want []Tensor) error {
	names := make(map[string]bool, len(want))
	var missing []string
	for _, w := range want {
		if names[w.Name] {
			return fmt.Errorf("tensor %q: asked for twice", w.Name)
		}
		names[w.Name] = true
		e, ok := t.Entry(w.Name)
		if !ok {
			missing = append(missing, w.Name)
			continue
		}
		if !slices.Equal(e.Shape, w.Shape) {
			return fmt.Errorf("%s: %s tensor %q: shape is %v in the checkpoint, %v in this run", t.dir, t.part, w.Name, e.Shape, w.Shape)
		}
	}
	var extra []string
	for _, e := range t.Entries() {
		if !names[e.Name] {
			extra = append(extra, e.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: %s tensor %s in this run but not in the checkpoint; was it saved by another recipe?", t.dir, t.part, quoteFirst(missing))
	}
	if len(extra) > 0 {
		return fmt.Errorf("%s: %s tensor %s in the checkpoint but not in this run; was it saved by another recipe?", t.dir, t.part, quoteFirst(extra))
	}
	return nil
}

// quoteFirst names the first of several tensors, counts the others, and adds the verb.
func quoteFirst(names []string) string {
	slices.Sort(names)
	if len(names) == 1 {
		return fmt.Sprintf("%q is", names[0])
	}
	return fmt.Sprintf("%q (and %d more) are", names[0], len(names)-1)
}

// ReadFloat32 fills dst, which must have exactly the tensor's number of elements. It preserves all
// bits.
func (t *Tensors) ReadFloat32(name string, dst []float32) error {
	if e, ok := t.whole[name]; ok && len(dst) != elements(e.Shape) {
		return fmt.Errorf("tensor %q: shape %v has %d elements, the buffer %d", name, e.Shape, elements(e.Shape), len(dst))
	}
	return t.ReadRange(name, 0, dst)
}

// ReadRange fills dst with the tensor's elements starting at `from`, in row-major order. It
// preserves all bits.
func (t *Tensors) ReadRange(name string, from int, dst []float32) error {
	list, ok := t.pieces[name]
	if !ok {
		return t.set.ReadFloat32Range(name, from, dst)
	}
	if n := elements(t.whole[name].Shape); from < 0 || len(dst) > n-from {
		return fmt.Errorf("tensor %q: shape %v has no %d elements from %d on", name, t.whole[name].Shape, len(dst), from)
	}
	for _, p := range list {
		first, last := max(from, p.From), min(from+len(dst), p.To)
		if first >= last {
			continue
		}
		if err := t.set.ReadFloat32Range(pieceName(name, p.From, p.To), first-p.From, dst[first-from:last-from]); err != nil {
			return err
		}
	}
	return nil
}
