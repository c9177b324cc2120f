package plot

import (
	"math"
	"slices"
	"testing"
)

var nan = math.NaN()

func TestSmooth(t *testing.T) {
	falling, steps := make([]float64, 1000), make([]float64, 1000)
	for i := range falling {
		falling[i] = 8 * math.Pow(float64(i)+1, -0.3)
		steps[i] = 3
	}
	if got := smooth(steps, 0.9); !slices.Equal(got, steps) {
		t.Error("a constant doesn't stay as it is")
	}
	if got := smooth(falling, 0); !slices.Equal(got, falling) {
		t.Error("the weight 0 changes something")
	}
	got := smooth(falling, SmoothFor(len(falling)))
	for i, y := range falling {
		if got[i] < y-1e-12 || got[i] > 1.05*y {
			t.Fatalf("point %d of a smooth curve: %g became %g, more than 5%% behind", i, y, got[i])
		}
	}

	noisy := slices.Clone(steps)
	for i := range noisy {
		noisy[i] += float64(i%2)*2 - 1
	}
	for i, y := range smooth(noisy, 0.9)[200:] {
		if math.Abs(y-3) > 0.06 {
			t.Fatalf("noise of 1 around 3 is smoothed to %g at point %d", y, i)
		}
	}

	gaps := smooth([]float64{nan, 2, nan, 2, math.Inf(1), 2}, 0.5)
	for i, want := range []float64{nan, 2, nan, 2, math.Inf(1), 2} {
		if gaps[i] != want && !(math.IsNaN(want) && math.IsNaN(gaps[i])) {
			t.Errorf("with gaps: point %d is %g, want %g", i, gaps[i], want)
		}
	}
}

func TestSmoothIsTheAverage(t *testing.T) {
	// From point 90 on the average has its full length, and continues as an exponential one.
	y := make([]float64, 200)
	for i := range y {
		y[i] = math.Sin(float64(i))
	}
	const weight = 0.8
	got := smooth(y, weight)
	for i := 100; i < len(y); i++ {
		if want := weight*got[i-1] + (1-weight)*y[i]; math.Abs(got[i]-want) > 1e-12 {
			t.Fatalf("point %d is %g, want %g", i, got[i], want)
		}
	}
}

func TestSmoothFor(t *testing.T) {
	for n, want := range map[int]float64{0: 0, 10: 0, 50: 0, 200: 0.6, 5000: 1 - 2/101.0} {
		if got := SmoothFor(n); math.Abs(got-want) > 1e-12 {
			t.Errorf("for %d points %g, want %g", n, got, want)
		}
	}
}

func TestRuns(t *testing.T) {
	x := []float64{1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		y    []float64
		want []int // lengths
	}{
		{[]float64{1, 1, 1, 1, 1, 1, 1}, []int{7}},
		{[]float64{nan, 1, 1, nan, nan, 1, nan}, []int{2, 1}},
		{[]float64{1, math.Inf(-1), 1, 1, 1, 1e101, 1}, []int{1, 3, 1}},
		{[]float64{nan, nan, nan, nan, nan, nan, nan}, nil},
	} {
		var got []int
		for _, run := range runs(x, c.y) {
			got = append(got, len(run))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: runs of %v points, want %v", c.y, got, c.want)
		}
	}
}

func TestThin(t *testing.T) {
	run := make([]point, 100000)
	for i := range run {
		run[i] = point{float64(i), math.Sin(float64(i))}
	}
	run[43210].Y, run[76543].Y = 9, -9 // spikes of one step
	got := thin(run, 0, 99999)
	if len(got) > 2*(maxColumns+1)+2 {
		t.Errorf("%d points are left", len(got))
	}
	if !slices.IsSortedFunc(got, func(a, b point) int { return int(a.X - b.X) }) {
		t.Error("the points are out of order")
	}
	for _, i := range []int{0, 43210, 76543, 99999} {
		if !slices.Contains(got, run[i]) {
			t.Errorf("point %d is lost", i)
		}
	}
	for start := 0; start < len(run); start += 1000 { // 15 columns
		low, high := 0.0, 0.0
		for _, p := range run[start : start+1000] {
			low, high = min(low, p.Y), max(high, p.Y)
		}
		for _, p := range got {
			if p.X >= float64(start) && p.X < float64(start+1000) && (p.Y == low || p.Y == high) {
				if p.Y == low {
					low = nan
				} else {
					high = nan
				}
			}
		}
		if !math.IsNaN(low) || !math.IsNaN(high) {
			t.Fatalf("from %d on, the lowest or the highest point is lost", start)
		}
	}
	short := run[:2*maxColumns]
	if got := thin(short, 0, 99999); !slices.Equal(got, short) {
		t.Error("a curve with room for all its points is thinned")
	}
}

func TestExtent(t *testing.T) {
	line := func(y ...float64) []Series {
		x := make([]float64, len(y))
		for i := range x {
			x[i] = float64(i + 1)
		}
		return []Series{{X: x, Y: y}}
	}
	spike := make([]float64, 100)
	for i := range spike {
		spike[i] = 2 + float64(i%2)
	}
	spike[0] = 100
	late := line(2, 3)
	late[0].X = []float64{500, 600}

	for _, c := range []struct {
		name    string
		options Options
		series  []Series
		want    extent
		cut     bool
	}{
		{"all of it", Options{}, line(spike...), extent{0, 100, 0, 104.9, 100, 0}, false},
		{"from zero", Options{FromZero: true}, line(50, 100), extent{1, 2, 0, 102.5, 100, 0}, false},
		{"percent", Options{Percent: true}, line(0, 0), extent{1, 2, 0, 105, 0, 0}, false},
		{"cut", Options{CutTop: true}, line(spike...), extent{0, 100, 1.9325, 3.4175, 100, 0}, true},
		{"cut above the reference", Options{CutTop: true, References: []Reference{{"", 12}}}, line(spike...),
			extent{0, 100, 1.47, 13.13, 100, 0}, true},
		{"reference below", Options{References: []Reference{{"", 1}}}, line(2, 3), extent{1, 2, 0.9, 3.1, 3, 0}, false},
		{"nothing to cut", Options{CutTop: true}, line(2, 3), extent{1, 2, 1.95, 3.05, 3, 0}, false},
		{"late start", Options{}, late, extent{500, 600, 1.95, 3.05, 3, 0}, false},
		{"below zero", Options{}, line(-1, 1), extent{1, 2, -1.1, 1.1, 1, 0}, false},
		{"gaps", Options{}, line(2, nan, 3, math.Inf(1)), extent{1, 4, 1.95, 3.05, 3, 2}, false},
		{"one point", Options{}, line(4), extent{0, 2, 3.78, 4.22, 4, 0}, false},
		{"flat at zero", Options{}, line(0, 0), extent{1, 2, -0.0011, 0.0011, 0, 0}, false},
	} {
		got := extentOf(c.options, c.series)
		for _, v := range []struct {
			name      string
			got, want float64
		}{
			{"xMin", got.xMin, c.want.xMin}, {"xMax", got.xMax, c.want.xMax},
			{"yMin", got.yMin, c.want.yMin}, {"yMax", got.yMax, c.want.yMax},
			{"highest", got.highest, c.want.highest}, {"gaps", float64(got.gaps), float64(c.want.gaps)},
		} {
			if math.Abs(v.got-v.want) > 1e-9 {
				t.Errorf("%s: %s is %g, want %g", c.name, v.name, v.got, v.want)
			}
		}
		if got.cut() != c.cut {
			t.Errorf("%s: cut is %v, want %v", c.name, got.cut(), c.cut)
		}
	}
}
