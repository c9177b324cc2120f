//go:build linux

package cuda

import (
	"slices"
	"testing"
)

// TestLibraries: a driver gets the newest libraries that it can work with, and no newer ones.
func TestLibraries(t *testing.T) {
	for _, c := range []struct {
		version cudaVersion
		text    string
		want    []string
	}{
		{11080, "11.8", nil},
		{12000, "12.0", []string{"libx.so.12"}},
		{12090, "12.9", []string{"libx.so.12"}},
		{13010, "13.1", []string{"libx.so.13", "libx.so.12"}},
		{14000, "14.0", []string{"libx.so.13", "libx.so.12"}},
	} {
		if got := c.version.libraries("libx.so"); !slices.Equal(got, c.want) || c.version.String() != c.text {
			t.Errorf("%v: %v, want %s: %v", c.version, got, c.text, c.want)
		}
	}
}
