package checkpoint

import (
	"cmp"
	"fmt"
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
	set    *safetensors.Set
	whole  map[string]safetensors.Entry
	pieces map[string][]Piece // of the tensors that are stored in pieces, in order
}

// openTensors opens the files at paths. shapes are those of the tensors that are stored in pieces.
func openTensors(shapes map[string][]int, paths ...string) (*Tensors, error) {
	set, err := safetensors.OpenSet(paths...)
	if err != nil {
		return nil, err
	}
	t := &Tensors{set: set, whole: map[string]safetensors.Entry{}, pieces: map[string][]Piece{}}
	for _, e := range set.Entries() {
		name, from, to, ok := parsePiece(e.Name)
		shape, inPieces := shapes[name]
		if !ok || !inPieces {
			t.whole[e.Name] = e
			continue
		}
		if e.DType != safetensors.F32 || !slices.Equal(e.Shape, []int{to - from}) {
			set.Close()
			return nil, fmt.Errorf("tensor %q: %s of shape %v, want F32 of shape [%d]", e.Name, e.DType, e.Shape, to-from)
		}
		t.pieces[name] = append(t.pieces[name], Piece{Name: name, Shape: shape, From: from, To: to})
	}
	for name, list := range t.pieces {
		if err := covers(list, elements(shapes[name])); err != nil {
			set.Close()
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if _, ok := t.whole[name]; ok {
			set.Close()
			return nil, fmt.Errorf("tensor %q: is stored both whole and in pieces", name)
		}
		t.whole[name] = safetensors.Entry{Name: name, DType: safetensors.F32, Shape: shapes[name]}
	}
	return t, nil
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
