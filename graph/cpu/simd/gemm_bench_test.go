package simd

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var gemmShapes = flag.String("gemm", "1024x1024x1024/NN/1",
	"what BenchmarkGemm times, separated by commas: MxNxK/which of A and B are stored transposed/workers")

// BenchmarkGemm reports the median GFLOP/s of rounds of 20 ms. scripts/bench/gemm.sh compares it with
// OpenBLAS.
func BenchmarkGemm(b *testing.B) {
	for _, shape := range strings.Split(*gemmShapes, ",") {
		var g Gemm
		var transposes string
		var workers int
		if _, err := fmt.Sscanf(strings.ReplaceAll(shape, "/", " "), "%dx%dx%d %s %d",
			&g.M, &g.N, &g.K, &transposes, &workers); err != nil || len(transposes) != 2 {
			b.Fatalf("-gemm %s: write it like 1024x1024x1024/NT/2", shape)
		}
		g.TransA, g.TransB = transposes[0] == 'T', transposes[1] == 'T'
		b.Run(shape, func(b *testing.B) { benchmarkGemm(b, g, workers) })
	}
}

func benchmarkGemm(b *testing.B, g Gemm, n int) {
	c := newGemmCase(g, n)
	product := c.Bind(workers(b, n), c.a, c.b, c.c, c.scratch)
	calls := 0
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; calls++ {
		product()
	}
	var rate []float64
	for b.Loop() {
		start := time.Now()
		for range calls {
			product()
		}
		rate = append(rate, 2*float64(g.M)*float64(g.N)*float64(g.K)*float64(calls)/float64(time.Since(start)))
	}
	slices.Sort(rate)
	b.ReportMetric(rate[len(rate)/2], "GFLOP/s")
}
