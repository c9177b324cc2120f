package runlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCounter: work that takes a while is shown, and nothing is left of it; quick work isn't shown.
func TestCounter(t *testing.T) {
	style := barStyle{ansi: true, width: func() int { return 80 }}
	for _, test := range []struct {
		name  string
		after time.Duration
		want  []string
	}{
		{"long", 0, []string{"(40/100)", "(80/100) of the prompt"}},
		{"short", time.Hour, nil},
	} {
		var out strings.Builder
		c := &Counter{w: &out, what: "of the prompt", style: style, after: test.after}
		for range 2 { // the second prompt has its own bar
			out.Reset()
			for _, done := range []int{0, 40, 80, 100} {
				c.Set(done, 100)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%s: %q lacks %q", test.name, out.String(), want)
				}
			}
			if test.want == nil && out.Len() > 0 {
				t.Errorf("%s: %q", test.name, out.String())
			}
			if _, left, _ := strings.Cut(out.String(), "of the prompt"); test.want != nil && !strings.HasSuffix(left, "\x1b[2K\r") {
				t.Errorf("%s: %q is left on the screen", test.name, left)
			}
		}
	}
}

// TestCounterOnFile: nothing is written to what is not a terminal.
func TestCounterOnFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := NewCounter(f, "of the prompt")
	c.after = 0
	if c.Shows() {
		t.Error("a file is taken for a terminal")
	}
	c.Set(0, 10)
	c.Set(5, 10)
	c.Clear()
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		t.Errorf("%v, %v", info, err)
	}
}
