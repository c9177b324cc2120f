package checkpoint

import (
	"math"
	"testing"
)

func TestFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		a, b []float32
		want string
	}{
		{nil, []float32{0, -1, math.MaxFloat32, math.SmallestNonzeroFloat32}, ""},
		{[]float32{1, 2}, []float32{3, nan}, "b holds NaN"},
		{[]float32{1, inf}, []float32{nan}, "a holds -Inf"}, // the first of the list, whichever is found first
	} {
		err := Finite([]Tensor{{Name: "a", Data: c.a}, {Name: "b", Data: c.b}})
		if got := errorText(err); got != c.want {
			t.Errorf("%v and %v: %q, want %q", c.a, c.b, got, c.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
