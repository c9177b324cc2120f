package recipes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// Difference is a key in which two recipes differ, with both values as JSON.
type Difference struct {
	Key, A, B string
}

func (d Difference) String() string { return fmt.Sprintf("%s: %s and %s", d.Key, d.A, d.B) }

// Differences returns the keys in which a and b differ, in the order of a recipe.
func Differences(a, b *Recipe) ([]Difference, error) {
	return differences("", reflect.ValueOf(*a), reflect.ValueOf(*b))
}

func differences(prefix string, a, b reflect.Value) ([]Difference, error) {
	var list []Difference
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name, ok := keyOf(f)
		if !ok {
			continue
		}
		if isSection(f.Type) {
			in, err := differences(prefix+name+".", a.Field(i), b.Field(i))
			if err != nil {
				return nil, err
			}
			list = append(list, in...)
			continue
		}
		if f.Type.Kind() == reflect.Slice && a.Field(i).Len()+b.Field(i).Len() == 0 {
			continue // one of them may be nil
		}
		// Values are compared as text, the form they are read from: 3 of one type equals 3 of
		// another.
		x, err := json.Marshal(a.Field(i).Interface())
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", prefix, name, err)
		}
		y, err := json.Marshal(b.Field(i).Interface())
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", prefix, name, err)
		}
		if !bytes.Equal(x, y) {
			list = append(list, Difference{prefix + name, string(x), string(y)})
		}
	}
	return list, nil
}
