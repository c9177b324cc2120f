package runlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The keys of a validation. On longer rows, and on those of a source, the name of the length or of
// the source is appended.
const (
	lossKey        = "val_loss"
	bitsPerByteKey = "val_bits_per_byte"
)

// The keys of a validation that say what training has read; for a named source the name is
// appended.
const (
	epochsKey = "epochs"
	tokensKey = "tokens"
)

func keyOf(key, name string) string {
	if name == "" {
		return key
	}
	return key + "@" + name
}

// sourcesIn returns the sources that a validation's keys name, without their numbers.
func sourcesIn(values map[string]json.RawMessage) []Source {
	var list []Source
	for key := range values {
		if key == epochsKey {
			list = append(list, Source{})
		} else if name, ok := strings.CutPrefix(key, epochsKey+"@"); ok {
			list = append(list, Source{Name: name})
		}
	}
	slices.SortFunc(list, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// fields returns two fields for each longer row length, each source's validation, and its text.
func (v *Val) fields() []field {
	var list []field
	for i, at := range v.Longer {
		list = append(list,
			field{key: keyOf(lossKey, lengthName(at.Times)), at: func(r *Record) any { return &r.Val.Longer[i].Loss }},
			field{key: keyOf(bitsPerByteKey, lengthName(at.Times)), at: func(r *Record) any { return &r.Val.Longer[i].BitsPerByte }})
	}
	for i, of := range v.BySource {
		list = append(list,
			field{key: keyOf(lossKey, of.Name), at: func(r *Record) any { return &r.Val.BySource[i].Loss }},
			field{key: keyOf(bitsPerByteKey, of.Name), at: func(r *Record) any { return &r.Val.BySource[i].BitsPerByte }})
	}
	for i, source := range v.Sources {
		list = append(list,
			field{key: keyOf(epochsKey, source.Name), at: func(r *Record) any { return &r.Val.Sources[i].Epochs }},
			field{key: keyOf(tokensKey, source.Name), at: func(r *Record) any { return &r.Val.Sources[i].Tokens }})
	}
	return list
}

// validationsIn returns the lengths and the sources that a validation's keys name, without their
// numbers.
func validationsIn(values map[string]json.RawMessage) (longer []ValAt, bySource []ValOf) {
	for key := range values {
		of, ok := strings.CutPrefix(key, lossKey+"@")
		if !ok {
			continue
		}
		if times, ok := lengthOf(of); ok {
			longer = append(longer, ValAt{Times: times})
		} else {
			bySource = append(bySource, ValOf{Name: of})
		}
	}
	slices.SortFunc(longer, func(a, b ValAt) int { return a.Times - b.Times })
	slices.SortFunc(bySource, func(a, b ValOf) int { return strings.Compare(a.Name, b.Name) })
	return longer, bySource
}

// lengthName is how a multiple of the training length is called in keys.
func lengthName(times int) string { return fmt.Sprintf("%dx", times) }

// lengthOf returns the multiple of the training length that is called name in keys, as in 2x; ok is
// false for the name of a source, which is never of that form (data.Config).
func lengthOf(name string) (times int, ok bool) {
	digits, ok := strings.CutSuffix(name, "x")
	if !ok {
		return 0, false
	}
	times, err := strconv.Atoi(digits)
	return times, err == nil
}
