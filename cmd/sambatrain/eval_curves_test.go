package main

import (
	"slices"
	"testing"
)

func TestDistinct(t *testing.T) {
	got := distinct([]string{"samba", "llama", "samba"}, []string{"runs/a/", "runs/b", "runs/c"})
	if want := []string{"runs/a", "llama", "runs/c"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
