package peak

import (
	"fmt"
	"math"
	"runtime"
	"testing"
)

func TestLimits(t *testing.T) {
	p := Peak{GFLOPs: 100, ReadGBs: 10, TriadGBs: 20}
	for _, c := range []struct {
		flops, bytes, seconds float64
		memory                bool
	}{
		{flops: 1e11, bytes: 1e9, seconds: 1},
		{flops: 1e9, bytes: 4e10, seconds: 2, memory: true},
		{flops: 0, bytes: 2e10, seconds: 1, memory: true},
	} {
		if got := p.Seconds(c.flops, c.bytes); !(math.Abs(got-c.seconds) <= 1e-12) {
			t.Errorf("%g operations on %g bytes take %g s at least, want %g", c.flops, c.bytes, got, c.seconds)
		}
		if got := p.MemoryBound(c.flops, c.bytes); got != c.memory {
			t.Errorf("%g operations on %g bytes: bound by memory is %v", c.flops, c.bytes, got)
		}
		if got := p.Share(c.flops, c.bytes, 4*c.seconds); !(math.Abs(got-0.25) <= 1e-12) {
			t.Errorf("%g operations on %g bytes in four times the least time: %g of the limit", c.flops, c.bytes, got)
		}
	}
}

// TestMeasure checks that the rates exist and are plausible: between a slow core and a thousand
// fast ones.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a second")
	}
	p := Measure(2)
	t.Logf("%+v", p)
	if p.Threads != 2 || p.SIMD == "" {
		t.Errorf("%+v does not say what was measured", p)
	}
	for name, x := range map[string]float64{"GFLOP/s": p.GFLOPs, "read": p.ReadGBs, "triad": p.TriadGBs} {
		if !(x > 0.1 && x < 1e6) {
			t.Errorf("%s is %g", name, x)
		}
	}
}

// TestMeter: another turn can only raise what was measured, and what is measured while the machine does
// something else doesn't lower it.
func TestMeter(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a second")
	}
	m := NewMeter(1)
	m.Turn()
	before := m.Peak()
	m.compute, m.read, m.triads = m.compute/2, m.read/2, m.triads/2 // as if the machine had been faster
	m.Turn()
	after := m.Peak()
	for name, x := range map[string][2]float64{"GFLOP/s": {before.GFLOPs, after.GFLOPs}, "read": {before.ReadGBs, after.ReadGBs}, "triad": {before.TriadGBs, after.TriadGBs}} {
		if !(x[1] >= 1.99*x[0]) {
			t.Errorf("%s fell from %g to %g", name, 2*x[0], x[1])
		}
	}
}

// BenchmarkPeak prints the peaks of one thread and of all threads.
func BenchmarkPeak(b *testing.B) {
	for _, threads := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprint(threads, " threads"), func(b *testing.B) {
			var p Peak
			for b.Loop() {
				p = Measure(threads)
			}
			b.ReportMetric(p.GFLOPs, "GFLOP/s")
			b.ReportMetric(p.ReadGBs, "read-GB/s")
			b.ReportMetric(p.TriadGBs, "triad-GB/s")
		})
	}
}
