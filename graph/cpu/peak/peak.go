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
	// times is the number of repetitions of each measurement. The best counts: anything else that
	// the machine does can only make it slower.
	times = 7
	// fmaTime is how long one measurement of multiply-adds takes.
	fmaTime = 20 * time.Millisecond
)

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
// It takes about half a second and 384 MiB. Nothing else should run at the same time.
func Measure(threads int) Peak {
	threads = max(threads, 1)
	p := Peak{Threads: threads, SIMD: simd.Active().String()}
	p.GFLOPs = multiplyAdds(threads)
	p.ReadGBs, p.TriadGBs = bandwidths(threads)
	return p
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
// exceed 1, since operands in caches can be faster than memory's peak.
func (p Peak) Share(flops, bytes, seconds float64) float64 {
	return p.Seconds(flops, bytes) / seconds
}

// multiplyAdds is the best rate of float32 operations, in GFLOP/s.
func multiplyAdds(threads int) float64 {
	rounds := 1 << 12
	for took := time.Duration(0); took < fmaTime; rounds *= 2 {
		start := time.Now()
		simd.FMAs(rounds)
		took = time.Since(start)
	}
	flops := make([]float64, threads)
	best := together(threads, func(i int) { flops[i] = simd.FMAs(rounds / 2) })
	sum := 0.0
	for _, n := range flops {
		sum += n
	}
	return sum / best.Seconds() / 1e9
}

// bandwidths are the best memory rates, in GB/s.
func bandwidths(threads int) (read, triad float64) {
	var parts [arrays][][]float32
	for k := range parts {
		array := make([]float32, arrayElements)
		for i := range threads {
			parts[k] = append(parts[k], array[i*arrayElements/threads:(i+1)*arrayElements/threads])
		}
	}
	for k := range parts { // write before reading: all pages that were never written are the same page of zeros
		for _, part := range parts[k] {
			for i := range part {
				part[i] = 1
			}
		}
	}
	triadPart := func(i int) { simd.Triad(parts[0][i], 0.5, parts[1][i], parts[2][i]) }
	sums := make([]float32, threads)
	readPart := func(i int) {
		for k := range parts {
			half := len(parts[k][i]) / 2
			sums[i] += simd.Dot(parts[k][i][:half], parts[k][i][half:2*half])
		}
	}
	const bytes = 4 * arrays * arrayElements
	read = bytes / together(threads, readPart).Seconds() / 1e9
	triad = bytes / together(threads, triadPart).Seconds() / 1e9
	return read, triad
}

// together runs part once on each thread, several times, and returns the shortest time until all
// threads were done. Threads spin while they wait for each other: one that had to be woken up would
// be late.
func together(threads int, part func(thread int)) time.Duration {
	var best time.Duration
	var begun, done atomic.Int64
	var all sync.WaitGroup
	for i := 1; i < threads; i++ {
		all.Go(func() {
			for n := range int64(times) {
				await(&begun, n+1)
				part(i)
				done.Add(1)
			}
		})
	}
	for n := range int64(times) {
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
