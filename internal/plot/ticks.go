package plot

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
)

// ticks puts marks at round numbers, 1, 2, 2.5 or 5 times a power of ten apart.
type ticks struct {
	most  int  // maximum number of intervals between marks
	whole bool // only integers, for an axis that counts
}

// Ticks implements plot.Ticker.
func (t ticks) Ticks(lo, hi float64) []plot.Tick {
	step := niceStep((hi-lo)/float64(t.most), t.whole)
	first := math.Ceil(lo/step - 1e-9)
	var marks []plot.Tick
	for i := range t.most + 1 {
		x := (first + float64(i)) * step
		if x > hi+1e-9*step {
			break
		}
		marks = append(marks, plot.Tick{Value: x, Label: label(x, step, hi)})
	}
	return marks
}

// marks are given marks; those within the range of the axis are drawn.
type marks []Mark

// Ticks implements plot.Ticker.
func (m marks) Ticks(lo, hi float64) []plot.Tick {
	var list []plot.Tick
	for _, mark := range m {
		if mark.X >= lo && mark.X <= hi {
			list = append(list, plot.Tick{Value: mark.X, Label: mark.Label})
		}
	}
	return list
}

// niceStep returns the smallest round number that is not below x.
func niceStep(x float64, whole bool) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		step := m * power
		if step >= x*(1-1e-9) && !(whole && step != math.Round(step)) {
			return step
		}
	}
	return 1 // whole, and x is below a tenth
}

// label writes x with as many decimals as step needs: 0.25, 1,500, and on an axis that extends
// beyond ten million 2.5M or 3B.
func label(x, step, largest float64) string {
	suffix := ""
	if largest >= 1e7 {
		for _, unit := range []struct {
			size float64
			name string
		}{{1e12, "T"}, {1e9, "B"}, {1e6, "M"}} {
			if largest >= unit.size {
				x, step, suffix = x/unit.size, step/unit.size, unit.name
				break
			}
		}
	}
	if x == 0 {
		return "0"
	}
	decimals := 0
	for s := step; decimals < 15 && math.Abs(s-math.Round(s)) > 1e-6*s; decimals++ {
		s *= 10
	}
	digits := strconv.FormatFloat(math.Abs(x), 'f', decimals, 64)
	whole, fraction, _ := strings.Cut(digits, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if x < 0 {
		whole = "\u2212" + whole
	}
	return whole + suffix
}
