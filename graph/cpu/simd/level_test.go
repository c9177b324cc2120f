package simd

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		best  Level
		name  string
		want  Level
		error string
	}{
		{AVX512, "", AVX512, ""},
		{AVX2, "", AVX2, ""},
		{AVX512, "avx512", AVX512, ""},
		{AVX512, "AVX2", AVX2, ""},
		{AVX512, "portable", Portable, ""},
		{AVX2, "avx512", AVX2, "SAMBATRAIN_SIMD=avx512: this CPU runs avx2 at most"},
		{Portable, "avx2", Portable, "this CPU runs portable at most"},
		{AVX2, "sse9", AVX2, `SAMBATRAIN_SIMD="sse9": not an instruction set`},
		{AVX2, " ", AVX2, "not an instruction set"},
	} {
		got, err := choose(c.best, c.name)
		if got != c.want {
			t.Errorf("choose(%s, %q) = %s, want %s", c.best, c.name, got, c.want)
		}
		switch {
		case c.error == "" && err != nil:
			t.Errorf("choose(%s, %q): unexpected error %v", c.best, c.name, err)
		case c.error != "" && (err == nil || !strings.Contains(err.Error(), c.error)):
			t.Errorf("choose(%s, %q): error %v, want one with %q", c.best, c.name, err, c.error)
		}
	}
}

func TestForce(t *testing.T) {
	before := Active()
	for _, l := range Levels() {
		restore := Force(l)
		if Active() != l {
			t.Errorf("after Force(%s) Active() = %s", l, Active())
		}
		restore()
		if Active() != before {
			t.Errorf("after restore Active() = %s, want %s", Active(), before)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Force of a level that no CPU has did not panic")
		}
	}()
	Force(AVX512 + 1)
}
