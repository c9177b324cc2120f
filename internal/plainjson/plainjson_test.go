package plainjson

import (
	"math"
	"testing"
)

func TestForms(t *testing.T) {
	v := map[string]any{"a<b": []int{1}}
	for _, c := range []struct {
		form func(any) ([]byte, error)
		want string
	}{
		{Line, "{\"a<b\":[1]}\n"},
		{Indented, "{\n  \"a<b\": [\n    1\n  ]\n}\n"},
	} {
		if got, err := c.form(v); err != nil || string(got) != c.want {
			t.Errorf("%q (%v), want %q", got, err, c.want)
		}
		if got, err := c.form(math.NaN()); err == nil {
			t.Errorf("NaN became %q", got)
		}
	}
}
