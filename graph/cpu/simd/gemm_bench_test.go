package simd

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var gemmShapes = flag.String("gemm", "1024x1024x1024/NN/1",
	"what BenchmarkGemm times, separated by commas: MxNxK/which of A and B are stored transposed/workers, "+
		"and /bf16 to round both factors to bfloat16 or /bf16b where B is stored in bfloat16")

// BenchmarkGemm reports the median GFLOP/s of rounds of 20 ms. scripts/bench/gemm.sh compares it with
// OpenBLAS.
func BenchmarkGemm(b *testing.B) {
	for _, shape := range strings.Split(*gemmShapes, ",") {
		g, workers, err := parseGemm(shape)
		if err != nil {
			b.Fatalf("-gemm %s: write it like 1024x1024x1024/NT/2 or 1024x1024x1024/NT/2/bf16", shape)
		}
		b.Run(shape, func(b *testing.B) { benchmarkGemm(b, g, workers) })
	}
}

func parseGemm(shape string) (g Gemm, workers int, err error) {
	parts := strings.Split(shape, "/")
	if len(parts) < 3 || len(parts) > 4 || len(parts[1]) != 2 {
		return g, 0, errors.New("not a product")
	}
	if len(parts) == 4 {
		switch parts[3] {
		case "bf16":
			g.RoundFactors = true
		case "bf16b":
			g.BF16B = true
		default:
			return g, 0, errors.New("not a precision")
		}
	}
	g.TransA, g.TransB = parts[1][0] == 'T', parts[1][1] == 'T'
	_, err = fmt.Sscanf(parts[0]+" "+parts[2], "%dx%dx%d %d", &g.M, &g.N, &g.K, &workers)
	return g, workers, err
}

func benchmarkGemm(b *testing.B, g Gemm, n int) {
	c := newBF16Case(g, n)
	product := c.bind(workers(b, n))
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
