package runlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The keys of a validation on longer rows, with the multiple of the training length.
const (
	lossAtKey        = "val_loss@%dx"
	bitsPerByteAtKey = "val_bits_per_byte@%dx"
)

// The keys of a validation that say what training has read; for a named source the name is
// appended.
const (
	epochsKey = "epochs"
	tokensKey = "tokens"
)

func sourceKey(key, name string) string {
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

// fields returns two fields for each longer row length and each source.
func (v *Val) fields() []field {
	var list []field
	for i, at := range v.Longer {
		list = append(list,
			field{key: fmt.Sprintf(lossAtKey, at.Times), at: func(r *Record) any { return &r.Val.Longer[i].Loss }},
			field{key: fmt.Sprintf(bitsPerByteAtKey, at.Times), at: func(r *Record) any { return &r.Val.Longer[i].BitsPerByte }})
	}
	for i, source := range v.Sources {
		list = append(list,
			field{key: sourceKey(epochsKey, source.Name), at: func(r *Record) any { return &r.Val.Sources[i].Epochs }},
			field{key: sourceKey(tokensKey, source.Name), at: func(r *Record) any { return &r.Val.Sources[i].Tokens }})
	}
	return list
}

// longerIn returns the lengths that a validation's keys name, without their numbers.
func longerIn(values map[string]json.RawMessage) []ValAt {
	var list []ValAt
	for key := range values {
		var times int
		if n, err := fmt.Sscanf(key, lossAtKey, &times); err == nil && n == 1 && key == fmt.Sprintf(lossAtKey, times) {
			list = append(list, ValAt{Times: times})
		}
	}
	slices.SortFunc(list, func(a, b ValAt) int { return a.Times - b.Times })
	return list
}
