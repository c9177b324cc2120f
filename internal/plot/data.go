package plot

import (
	"math"
	"slices"
)

// maxColumns is the approximate width of the curves in pixels. Of the points of a line that share a
// column only the lowest and the highest are drawn: it looks the same, and a million steps don't
// make a huge SVG.
const maxColumns = 1500

// SmoothFor returns a weight for Series.Smooth that suits n points: an average over about 2% of them.
func SmoothFor(n int) float64 {
	return max(0, weightOf(float64(n)/50))
}

// smooth returns the exponential moving average of y with the given weight of the past. At first
// the average covers no more than a tenth of the points so far, because losses fall steeply at the
// start and a long average would lag behind. Values that aren't finite are kept and not counted.
func smooth(y []float64, weight float64) []float64 {
	out := slices.Clone(y)
	mean, n := 0.0, 0
	for i, v := range y {
		if !finite(v) {
			continue
		}
		past := min(weight, weightOf(1+float64(n)/10))
		mean = past*mean + (1-past)*v
		out[i] = mean
		n++
	}
	return out
}

// weightOf returns the weight of the past in an exponential moving average over span points.
func weightOf(span float64) float64 { return 1 - 2/(span+1) }

type point struct{ X, Y float64 }

// runs splits a curve at the values that aren't finite.
func runs(x, y []float64) [][]point {
	var all [][]point
	var run []point
	for i := range x {
		if finite(y[i]) {
			run = append(run, point{x[i], y[i]})
			continue
		}
		if len(run) > 0 {
			all = append(all, run)
			run = nil
		}
	}
	if len(run) > 0 {
		all = append(all, run)
	}
	return all
}

// thin keeps the lowest and the highest point of each of maxColumns columns of the range lo to hi,
// in order, and the first and the last point.
func thin(run []point, lo, hi float64) []point {
	if len(run) <= 2*maxColumns || hi <= lo {
		return run
	}
	column := func(p point) int { return int((p.X - lo) / (hi - lo) * maxColumns) }
	out := []point{run[0]}
	for start := 0; start < len(run); {
		low, high, end := start, start, start+1
		for ; end < len(run) && column(run[end]) == column(run[start]); end++ {
			if run[end].Y < run[low].Y {
				low = end
			}
			if run[end].Y > run[high].Y {
				high = end
			}
		}
		out = append(out, run[min(low, high)])
		if low != high {
			out = append(out, run[max(low, high)])
		}
		start = end
	}
	return append(out, run[len(run)-1])
}

// extent is the range of a figure's axes, and what had to be left out.
type extent struct {
	xMin, xMax, yMin, yMax float64
	highest                float64 // the largest finite value of all series
	gaps                   int     // values that aren't finite
}

func extentOf(options Options, series []Series) extent {
	e := extent{xMin: math.Inf(1), xMax: math.Inf(-1)}
	var values []float64
	for _, s := range series {
		for i, y := range s.Y {
			e.xMin, e.xMax = min(e.xMin, s.X[i]), max(e.xMax, s.X[i])
			if finite(y) {
				values = append(values, y)
			} else {
				e.gaps++
			}
		}
	}
	if e.xMin > 0 && e.xMin <= e.xMax/10 {
		e.xMin = 0 // a run from its first step: the axis starts at 0, not at 1
	}
	e.xMin, e.xMax = widen(e.xMin, e.xMax, 1)

	slices.Sort(values)
	lowest := values[0]
	e.highest = values[len(values)-1]
	e.yMin, e.yMax = lowest, e.highest
	if options.CutTop {
		// The room above is for the noise of a flat curve: of a normal distribution it keeps 3
		// sigma.
		usual := values[((len(values)-1)*95+99)/100]
		e.yMax = min(e.yMax, usual+0.35*(usual-lowest))
	}
	for _, r := range options.References {
		// With room for the line's label.
		e.yMin, e.yMax = min(e.yMin, r.Y), max(e.yMax, r.Y+0.06*(r.Y-lowest))
	}
	e.yMin, e.yMax = widen(e.yMin, e.yMax, 1e-3)
	margin := 0.05 * (e.yMax - e.yMin)
	if e.yMin >= 0 {
		e.yMin = max(0, e.yMin-margin) // no loss is negative
	} else {
		e.yMin -= margin
	}
	e.yMax += margin
	if options.FromZero {
		e.yMin = min(0, e.yMin)
	}
	if options.Percent {
		e.yMin, e.yMax = 0, 105
	}
	return e
}

// widen widens a range that is a single point, or nearly so in floating point.
func widen(lo, hi, least float64) (float64, float64) {
	size := max(math.Abs(lo), math.Abs(hi))
	if hi-lo > 1e-6*size {
		return lo, hi
	}
	room := max(0.05*size, least)
	return lo - room, hi + room
}

// cut reports whether the y axis ends below a value.
func (e extent) cut() bool { return e.highest > e.yMax }

// finite reports whether x can be drawn. Far above any loss, the arithmetic of an axis overflows,
// so such values count as infinite.
func finite(x float64) bool { return math.Abs(x) <= 1e100 }
