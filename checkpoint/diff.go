package checkpoint

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Difference says how two checkpoints differ.
type Difference struct {
	// Same: all tensors are bitwise equal.
	Same bool `json:"same"`
	// Equal is the number of equal tensors.
	Equal int `json:"equal"`
	// Tensors are the other ones, by name.
	Tensors []TensorDifference `json:"tensors"`
	// State are lines about differences other than in tensors.
	State []string `json:"state"`
}

// TensorDifference says how much a tensor differs between two checkpoints.
type TensorDifference struct {
	Name string `json:"name"`
	// Part is "model" for a parameter, "optimizer" for a moment.
	Part string `json:"part"`
	// Max is max|a-b|, and Relative ||a-b||/||b||.
	Max      Float `json:"max"`
	Relative Float `json:"relative"`
	// Note says why the tensors can't be compared.
	Note string `json:"note,omitempty"`
}

// Float is a number that JSON may not be able to represent: NaN and infinities become strings.
type Float float64

// MarshalJSON implements json.Marshaler.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return json.Marshal(fmt.Sprint(float64(f)))
	}
	return json.Marshal(float64(f))
}

// Diff compares two checkpoints, parameters and moments. recipes returns the lines in which the
// texts of two recipes differ. If it is nil, or a checkpoint has no text, their checksums are
// compared.
func Diff(a, b *Checkpoint, recipes func(a, b []byte) []string) (*Difference, error) {
	d := &Difference{Tensors: []TensorDifference{}, State: []string{}}
	for _, part := range []string{partModel, partOptimizer} {
		if err := d.compare(a, b, part); err != nil {
			return nil, err
		}
	}
	d.Same = len(d.Tensors) == 0
	for _, v := range []struct {
		name string
		a, b any
	}{
		{"step", a.Step, b.Step}, {"tokens", a.Tokens, b.Tokens}, {"position", a.Position, b.Position},
		{"code_version", a.CodeVersion, b.CodeVersion},
	} {
		if v.a != v.b {
			d.State = append(d.State, fmt.Sprintf("%s: %v and %v", v.name, v.a, v.b))
		}
	}
	recipeLines, err := diffRecipes(a, b, recipes)
	if err != nil {
		return nil, err
	}
	d.State = append(d.State, recipeLines...)
	for _, key := range slices.Sorted(maps.Keys(joined(a.Extra, b.Extra))) {
		if one, two := string(a.Extra[key]), string(b.Extra[key]); one != two {
			d.State = append(d.State, fmt.Sprintf("state.%s differs", key))
		}
	}
	return d, nil
}

func diffRecipes(a, b *Checkpoint, recipes func(a, b []byte) []string) ([]string, error) {
	if a.RecipeSHA256 == b.RecipeSHA256 {
		return nil, nil
	}
	var texts [2][]byte
	for i, c := range []*Checkpoint{a, b} {
		var err error
		if texts[i], err = c.ReadRecipe(); err != nil {
			return nil, err
		}
	}
	if recipes == nil || texts[0] == nil || texts[1] == nil {
		return []string{fmt.Sprintf("recipe_sha256: %s and %s", a.RecipeSHA256, b.RecipeSHA256)}, nil
	}
	return recipes(texts[0], texts[1]), nil
}

func joined[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return all
}

func (d *Difference) compare(a, b *Checkpoint, part string) error {
	x, err := a.open(part)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := b.open(part)
	if err != nil {
		return err
	}
	defer y.Close()
	shapes := [2]map[string][]int{}
	for i, set := range []*Tensors{x, y} {
		shapes[i] = map[string][]int{}
		for _, e := range set.Entries() {
			shapes[i][e.Name] = e.Shape
		}
	}
	for _, name := range slices.Sorted(maps.Keys(joined(shapes[0], shapes[1]))) {
		one, inA := shapes[0][name]
		two, inB := shapes[1][name]
		switch {
		case !inA || !inB:
			in := a.Dir
			if inB {
				in = b.Dir
			}
			d.Tensors = append(d.Tensors, TensorDifference{Name: name, Part: part, Note: "is in " + in + " alone"})
		case !slices.Equal(one, two):
			d.Tensors = append(d.Tensors, TensorDifference{Name: name, Part: part, Note: fmt.Sprintf("has shapes %v and %v", one, two)})
		default:
			t, same, err := compareTensors(x, y, name)
			if err != nil {
				return err
			}
			t.Part = part
			if same {
				d.Equal++
			} else {
				d.Tensors = append(d.Tensors, t)
			}
		}
	}
	return nil
}

func compareTensors(a, b *Tensors, name string) (t TensorDifference, same bool, err error) {
	e, _ := a.Entry(name)
	x, y := make([]float32, e.Bytes()/4), make([]float32, e.Bytes()/4)
	if err := a.ReadFloat32(name, x); err != nil {
		return t, false, err
	}
	if err := b.ReadFloat32(name, y); err != nil {
		return t, false, err
	}
	same = true
	var largest, square, norm float64
	for i := range x {
		equal := math.Float32bits(x[i]) == math.Float32bits(y[i])
		same = same && equal
		diff := float64(x[i]) - float64(y[i])
		if equal && math.IsNaN(diff) {
			continue // the same infinity or NaN
		}
		largest = max(largest, math.Abs(diff))
		square += diff * diff
		norm += float64(y[i]) * float64(y[i])
	}
	relative := 0.0
	if square > 0 || math.IsNaN(square) {
		relative = math.Sqrt(square / norm)
	}
	return TensorDifference{Name: name, Max: Float(largest), Relative: Float(relative)}, same, nil
}
