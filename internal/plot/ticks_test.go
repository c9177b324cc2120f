package plot

import (
	"strings"
	"testing"
)

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		ticks  ticks
		lo, hi float64
		want   string
	}{
		{ticks{8, true}, 0, 600, "0 100 200 300 400 500 600"},
		{ticks{8, true}, 0, 24000, "0 5,000 10,000 15,000 20,000"},
		{ticks{8, true}, 0, 1e6, "0 200,000 400,000 600,000 800,000 1,000,000"},
		{ticks{8, true}, 0, 2e7, "0 2.5M 5.0M 7.5M 10.0M 12.5M 15.0M 17.5M 20.0M"},
		{ticks{8, true}, 0, 15.7e9, "0 2B 4B 6B 8B 10B 12B 14B"},
		{ticks{8, true}, 0, 2e12, "0 0.25T 0.50T 0.75T 1.00T 1.25T 1.50T 1.75T 2.00T"},
		{ticks{8, true}, 950, 1050, "960 980 1,000 1,020 1,040"},
		{ticks{8, true}, 0, 2, "0 1 2"},
		{ticks{8, true}, 0, 20, "0 5 10 15 20"},
		{ticks{6, false}, 1.93, 5.2, "2 3 4 5"},
		{ticks{6, false}, 1.95, 3.05, "2.0 2.2 2.4 2.6 2.8 3.0"},
		{ticks{6, false}, 0.101, 0.1043, "0.101 0.102 0.103 0.104"},
		{ticks{6, false}, -1.1, 1.1, "−1.0 −0.5 0 0.5 1.0"},
	} {
		var labels []string
		for _, tick := range c.ticks.Ticks(c.lo, c.hi) {
			if tick.Value < c.lo-1e-9 || tick.Value > c.hi+1e-9 {
				t.Errorf("%g to %g: a mark at %g", c.lo, c.hi, tick.Value)
			}
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("%g to %g: %s, want %s", c.lo, c.hi, got, c.want)
		}
	}
}
