package train

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	for _, c := range []struct {
		is, was string
		want    []string
	}{
		{"a: 1\nb: 2\n", "a: 1\nb: 2\n", nil},
		{"a: 1\n  b: 3\n", "a: 1\n  b: 2\n", []string{"b: 3 (was b: 2)"}},
		{"run:\n  threads: 3\n", "run:\n  threads: 2\n", nil},
		{"a: 1\n", "a: 1\nb: 2\n", []string{"sections or keys were added or removed"}},
	} {
		if got := changes([]byte(c.is), []byte(c.was)); !slices.Equal(got, c.want) {
			t.Errorf("%q and %q: %q, want %q", c.is, c.was, got, c.want)
		}
	}
}

// TestChangedConfig: a recipe that is not the one of the checkpoint, be it by a flipped
// bit, is told of.
func TestChangedConfig(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(r.Run.Out, ConfigFile)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(text, []byte("weight_decay: 0.1"), []byte("weight_decay: 0.3"), 1)
	if err := os.WriteFile(config, flipped, 0o666); err != nil || bytes.Equal(text, flipped) {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stopped *Stopped
	if _, err := Resume(ctx, r.Run.Out, o); err != nil && !errors.As(err, &stopped) {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the recipe is not the one of the checkpoint") || !strings.Contains(log.String(), "weight_decay: 0.3 (was weight_decay: 0.1)") {
		t.Errorf("the log is\n%s", log.String())
	}
}
