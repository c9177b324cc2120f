package simd

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// LevelVariable is the environment variable that lowers the instruction set, for tests and for
// bisecting a numerical difference: portable, avx2 or avx512.
const LevelVariable = "SAMBATRAIN_SIMD"

// Level is an instruction set that kernels are written for. Levels are ordered: a CPU that runs one
// runs all lower ones.
type Level int

const (
	// Portable is plain Go, on every architecture.
	Portable Level = iota
	// AVX2 needs AVX2 and FMA.
	AVX2
	// AVX512 needs what AVX2 needs and AVX-512 F, DQ, BW and VL.
	AVX512
)

// String returns the name that LevelVariable takes.
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

var (
	best       Level // of this CPU
	active     atomic.Int32
	levelError error
)

func init() {
	best = detect()
	l, err := choose(best, os.Getenv(LevelVariable))
	active.Store(int32(l))
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

// choose returns the level that name asks for on a CPU whose highest is best, and best itself with an
// error where it can't.
func choose(best Level, name string) (Level, error) {
	if name == "" {
		return best, nil
	}
	for l := Portable; l <= AVX512; l++ {
		if !strings.EqualFold(name, l.String()) {
			continue
		}
		if l > best {
			return best, fmt.Errorf("%s=%s: this CPU runs %s at most; set that or unset the variable", LevelVariable, name, best)
		}
		return l, nil
	}
	return best, fmt.Errorf("%s=%q: not an instruction set; use portable, avx2 or avx512", LevelVariable, name)
}

// Active returns the level that kernels use: the CPU's highest, lowered by LevelVariable.
func Active() Level { return Level(active.Load()) }

// LevelError returns what is wrong with LevelVariable, or nil. With an error, Active is the CPU's highest
// level; a command reports the error before it computes anything.
func LevelError() error { return levelError }

// Levels returns the levels that this CPU runs, lowest first.
func Levels() []Level {
	var all []Level
	for l := Portable; l <= best; l++ {
		all = append(all, l)
	}
	return all
}

// Force makes l the active level until restore is called, for tests. It panics where the CPU lacks l.
// A kernel that was bound before keeps its level.
func Force(l Level) (restore func()) {
	if l < Portable || l > best {
		panic(fmt.Sprintf("simd: force level %s: this CPU runs %s at most", l, best))
	}
	old := active.Swap(int32(l))
	return func() { active.Store(old) }
}
