// Package peak measures the peak rates of this machine's CPU and memory, for comparison with
// kernels.
package peak

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// Memory is measured with `arrays` arrays of arrayElements float32 elements: 384 MiB, well
	// beyond the caches.
	arrays, arrayElements = 3, 32 << 20
	// turns is the number of turns of Measure.
	turns = 4
	// repetitions of each measurement in a turn. The first finds the other threads asleep.
	repetitions = 2
	// fmaTime is how long one measurement of multiply-adds takes.
	fmaTime = 20 * time.Millisecond
)

// MeterBytes is the memory that a Meter holds.
const MeterBytes = 4 * arrays * arrayElements

// Peak is what a number of threads can achieve together.
type Peak struct {
	Threads int    `json:"threads"`
	SIMD    string `json:"simd"`
	// GFLOPs is the rate of independent float32 multiply-adds in registers with the instruction set
	// SIMD, in billions of operations per second; a multiply-add counts as two.
	GFLOPs float64 `json:"gflops"`
	// ReadGBs is the rate of reading arrays of 384 MiB in total, in 10^9 bytes per second.
	ReadGBs float64 `json:"read_gb_per_s"`
	// TriadGBs is the rate of x + a*y on such arrays, which reads two of them and writes one,
	// bypassing the caches.
	TriadGBs float64 `json:"triad_gb_per_s"`
}

// Measure measures the peaks of a number of threads, at least 1, with the active instruction set.
// It takes about half a second and MeterBytes of memory. Nothing else should run at the same time.
func Measure(threads int) Peak {
	m := NewMeter(threads)
	for range turns {
		m.Turn()
	}
	return m.Peak()
}

// Meter measures the peaks a bit at a time, in turns with what they are compared with: the load and the
// clock rate of a machine change from second to second.
type Meter struct {
	threads, rounds       int
	parts                 [arrays][][]float32 // of each array, one for each thread
	compute, read, triads time.Duration       // the shortest so far; 0 before the first turn
	flops                 float64             // of a measurement, all threads together
}

// NewMeter prepares the measurement of a number of threads, at least 1. It takes MeterBytes of memory.
func NewMeter(threads int) *Meter {
	m := &Meter{threads: max(threads, 1), rounds: 1 << 11}
	for took := time.Duration(0); took < fmaTime; {
		m.rounds *= 2
		took = together(1, func(int) { m.flops = float64(m.threads) * simd.FMAs(m.rounds) })
	}
	for k := range m.parts {
		array := make([]float32, arrayElements)
		for i := range array { // all pages that were never written are the same page of zeros
			array[i] = 1
		}
		for i := range m.threads {
			m.parts[k] = append(m.parts[k], array[i*arrayElements/m.threads:(i+1)*arrayElements/m.threads])
		}
	}
	return m
}

// Turn measures each rate once more, which takes about a tenth of a second.
func (m *Meter) Turn() {
	m.best(&m.compute, func(int) { simd.FMAs(m.rounds) })
	sums := make([]float32, m.threads)
	m.best(&m.read, func(i int) {
		for k := range m.parts {
			half := len(m.parts[k][i]) / 2
			sums[i] += simd.Dot(m.parts[k][i][:half], m.parts[k][i][half:2*half])
		}
	})
	m.best(&m.triads, func(i int) { simd.Triad(m.parts[0][i], 0.5, m.parts[1][i], m.parts[2][i]) })
}

// best keeps the shorter of what was measured and a new measurement: anything else that the machine does
// can only make it slower.
func (m *Meter) best(shortest *time.Duration, part func(thread int)) {
	if took := together(m.threads, part); *shortest == 0 || took < *shortest {
		*shortest = took
	}
}

// Peak returns the best rates of all turns. There must have been one.
func (m *Meter) Peak() Peak {
	return Peak{
		Threads: m.threads, SIMD: simd.Active().String(),
		GFLOPs:   m.flops / m.compute.Seconds() / 1e9,
		ReadGBs:  MeterBytes / m.read.Seconds() / 1e9,
		TriadGBs: MeterBytes / m.triads.Seconds() / 1e9,
	}
}

// Bandwidth is the higher of the two memory rates, in GB/s.
func (p Peak) Bandwidth() float64 { return max(p.ReadGBs, p.TriadGBs) }

// Seconds is the shortest time for some work at the peak rates: that of its operations or that of
// its bytes, whichever is longer.
func (p Peak) Seconds(flops, bytes float64) float64 {
	return max(flops/p.GFLOPs, bytes/p.Bandwidth()) / 1e9
}

// MemoryBound reports whether the bytes determine Seconds.
func (p Peak) MemoryBound(flops, bytes float64) bool {
	return bytes/p.Bandwidth() > flops/p.GFLOPs
}

// Share is the fraction of the tighter limit that work reached which took this many seconds. It can
// exceed 1: operands in caches can be faster than memory's peak, and bfloat16 than float32's.
func (p Peak) Share(flops, bytes, seconds float64) float64 {
	return p.Seconds(flops, bytes) / seconds
}

// together runs part on each thread, `repetitions` times, and returns the shortest time until all
// threads were done. Threads spin while they wait for each other: one that had to be woken up would
// be late.
func together(threads int, part func(thread int)) time.Duration {
	var best time.Duration
	var begun, done atomic.Int64
	var all sync.WaitGroup
	for i := 1; i < threads; i++ {
		all.Go(func() {
			for n := range int64(repetitions) {
				await(&begun, n+1)
				part(i)
				done.Add(1)
			}
		})
	}
	for n := range int64(repetitions) {
		start := time.Now()
		begun.Add(1)
		part(0)
		await(&done, (n+1)*int64(threads-1))
		if took := time.Since(start); n == 0 || took < best {
			best = took
		}
	}
	all.Wait()
	return best
}

// await returns once x has reached n.
func await(x *atomic.Int64, n int64) {
	for x.Load() < n {
		runtime.Gosched()
	}
}
