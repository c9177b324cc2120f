package bench

import "testing"

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		x    []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{8, 1, 2, 4}, 3},
	} {
		if got := median(test.x); got != test.want {
			t.Errorf("%v: %v, want %v", test.x, got, test.want)
		}
	}
}
