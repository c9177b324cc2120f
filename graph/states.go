package graph

import (
	"fmt"
	"maps"
	"slices"
)

// StateCopy is one part of a text's state: Bytes bytes, at offsets in region States.
type StateCopy struct {
	To, From, Bytes int
}

// TakeState lists the copies that give row `row` of a program of p the state of row fromRow of a
// program of from. A state's first dimension is its rows. If the second dimension is longer in one
// of them (a cache with more capacity), only the common part is copied: the text must fit.
func (p *Plan) TakeState(row int, from *Plan, fromRow int) ([]StateCopy, error) {
	if err := sameNames(p.States, from.States); err != nil {
		return nil, err
	}
	var list []StateCopy
	for _, name := range slices.Sorted(maps.Keys(p.States)) {
		to, src := p.States[name], from.States[name]
		if row < 0 || row >= to.Shape[0] || fromRow < 0 || fromRow >= src.Shape[0] {
			return nil, fmt.Errorf("state %s: no row %d of %d to take row %d of %d", name, row, to.Shape[0], fromRow, src.Shape[0])
		}
		if to.DType != src.DType || len(to.Shape) != len(src.Shape) || !to.Shape[2:].Equal(src.Shape[2:]) {
			return nil, fmt.Errorf("state %s: %v %v does not fit %v %v", name, src.DType, src.Shape, to.DType, to.Shape)
		}
		into, outOf := to.Shape[1:].Size()*to.DType.Size(), src.Shape[1:].Size()*src.DType.Size()
		list = append(list, StateCopy{To: 4*to.Offset + row*into, From: 4*src.Offset + fromRow*outOf, Bytes: min(into, outOf)})
	}
	return list, nil
}

// SameStates returns an error unless both plans have the same states in the same places.
func (p *Plan) SameStates(other *Plan) error {
	if err := sameNames(p.States, other.States); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.States)) {
		s, o := p.States[name], other.States[name]
		if s.Offset != o.Offset || s.DType != o.DType || !s.Shape.Equal(o.Shape) {
			return fmt.Errorf("state %s is %v %v at %d and %v %v at %d", name, s.DType, s.Shape, s.Offset, o.DType, o.Shape, o.Offset)
		}
	}
	return nil
}

func sameNames(a, b map[string]Slot) error {
	for _, pair := range [][2]map[string]Slot{{a, b}, {b, a}} {
		for _, name := range slices.Sorted(maps.Keys(pair[0])) {
			if _, ok := pair[1][name]; !ok {
				return fmt.Errorf("state %s is in one plan only", name)
			}
		}
	}
	return nil
}
