package simd

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// LevelVariable is the environment variable that selects a lower instruction set, for tests and for
// bisecting a numerical difference: portable, avx2, avx512 or avx512_bf16.
const LevelVariable = "SAMBATRAIN_SIMD"

// Level is an instruction set that kernels are written for. Levels are ordered: a CPU that supports
// one supports all lower ones.
type Level int

const (
	// Portable is plain Go, on every architecture.
	Portable Level = iota
	// AVX2 needs AVX2 and FMA.
	AVX2
	// AVX512 needs everything that AVX2 needs, and AVX-512 F, DQ, BW and VL.
	AVX512
)

// String returns the name for LevelVariable.
func (l Level) String() string {
	switch l {
	case Portable:
		return "portable"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	}
	return fmt.Sprintf("level %d", int(l))
}

// withBF16 is the name of AVX512 with AVX512-BF16, which only products of bfloat16 inputs use.
const withBF16 = "avx512_bf16"

var (
	best       Level // of this CPU
	bestBF16   bool  // it has AVX512-BF16
	active     atomic.Int32
	activeBF16 atomic.Bool
	levelError error
)

func init() {
	best = detect()
	bestBF16 = best == AVX512 && cpu.X86.HasAVX512BF16
	l, bf16, err := choose(best, bestBF16, os.Getenv(LevelVariable))
	active.Store(int32(l))
	activeBF16.Store(bf16)
	levelError = err
}

func detect() Level {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA:
		return Portable
	case !x.HasAVX512F || !x.HasAVX512DQ || !x.HasAVX512BW || !x.HasAVX512VL:
		return AVX2
	}
	return AVX512
}

// choose returns the level called name on a CPU whose highest is best, and whether to use
// AVX512-BF16, which the CPU has if bf16 is true. If it can't, it returns the CPU's best with an
// error.
func choose(best Level, bf16 bool, name string) (Level, bool, error) {
	if name == "" {
		return best, bf16, nil
	}
	highest := best.String()
	if bf16 {
		highest = withBF16
	}
	tooHigh := fmt.Errorf("%s=%s: this CPU runs %s at most; set that or unset the variable", LevelVariable, name, highest)
	if strings.EqualFold(name, withBF16) {
		if !bf16 {
			return best, bf16, tooHigh
		}
		return AVX512, true, nil
	}
	for l := Portable; l <= AVX512; l++ {
		if !strings.EqualFold(name, l.String()) {
			continue
		}
		if l > best {
			return best, bf16, tooHigh
		}
		return l, false, nil
	}
	return best, bf16, fmt.Errorf("%s=%q: not an instruction set; use portable, avx2, avx512 or %s", LevelVariable, name, withBF16)
}

// Active returns the level that kernels use: the CPU's highest, lowered by LevelVariable.
func Active() Level { return Level(active.Load()) }

// LevelError returns what is wrong with LevelVariable, or nil. After an error, Active is the CPU's
// highest level; a command reports the error before it computes anything.
func LevelError() error { return levelError }

// Levels returns the levels that this CPU supports, lowest first.
func Levels() []Level {
	var all []Level
	for l := Portable; l <= best; l++ {
		all = append(all, l)
	}
	return all
}

// Force makes l the active level until restore is called, for tests. It panics if the CPU lacks l.
// A kernel that was bound before keeps its level.
func Force(l Level) (restore func()) {
	if l < Portable || l > best {
		panic(fmt.Sprintf("simd: force level %s: this CPU runs %s at most", l, best))
	}
	old := active.Swap(int32(l))
	return func() { active.Store(old) }
}

// BF16 reports whether products of bfloat16 inputs use AVX512-BF16.
func BF16() bool { return activeBF16.Load() && Active() == AVX512 }

// ForceBF16 makes such products use AVX512-BF16, or not, until restore is called, for tests. It
// panics if on is true and the CPU lacks it.
func ForceBF16(on bool) (restore func()) {
	if on && !bestBF16 {
		panic("simd: force AVX512-BF16: this CPU lacks it")
	}
	old := activeBF16.Swap(on)
	return func() { activeBF16.Store(old) }
}

// HasBF16 reports whether this CPU has AVX512-BF16.
func HasBF16() bool { return bestBF16 }
