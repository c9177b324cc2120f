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
	r := recipe(t)
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set  string
		want []string
	}{
		{"optim.weight_decay=0.25", []string{"optim.weight_decay: 0.25 (was 0.1)"}},
		{"run.threads=3", nil},
	} {
		changed := *r
		if err := changed.Set(c.set); err != nil {
			t.Fatal(err)
		}
		if got := changes(&changed, text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.set, got, c.want)
		}
	}
	if got := changes(r, []byte("name: x\nnmae: y\n")); len(got) != 1 || !strings.Contains(got[0], "its recipe:2: unknown key nmae") {
		t.Errorf("a recipe that can't be read: %q", got)
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
	if !strings.Contains(log.String(), "the recipe is not the one of the checkpoint") || !strings.Contains(log.String(), "optim.weight_decay: 0.3 (was 0.1)") {
		t.Errorf("the log is\n%s", log.String())
	}
}
