package simd

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		best  Level
		bf16  bool
		name  string
		want  Level
		use   bool
		error string
	}{
		{AVX512, false, "", AVX512, false, ""},
		{AVX512, true, "", AVX512, true, ""},
		{AVX2, false, "", AVX2, false, ""},
		{AVX512, true, "avx512", AVX512, false, ""},
		{AVX512, true, "AVX512_BF16", AVX512, true, ""},
		{AVX512, true, "AVX2", AVX2, false, ""},
		{AVX512, false, "portable", Portable, false, ""},
		{AVX512, false, "avx512_bf16", AVX512, false, "SAMBATRAIN_SIMD=avx512_bf16: this CPU runs avx512 at most"},
		{AVX2, false, "avx512", AVX2, false, "SAMBATRAIN_SIMD=avx512: this CPU runs avx2 at most"},
		{Portable, false, "avx2", Portable, false, "this CPU runs portable at most"},
		{AVX512, true, "sse9", AVX512, true, `SAMBATRAIN_SIMD="sse9": not an instruction set`},
		{AVX2, false, " ", AVX2, false, "not an instruction set"},
	} {
		got, use, err := choose(c.best, c.bf16, c.name)
		if got != c.want || use != c.use {
			t.Errorf("choose(%s, %t, %q) = %s, %t, want %s, %t", c.best, c.bf16, c.name, got, use, c.want, c.use)
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
