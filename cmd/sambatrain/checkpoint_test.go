package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// TestCheckpointFault: a checkpoint that this process may not read is not called damaged.
func TestCheckpointFault(t *testing.T) {
	list := []checkpointStatus{
		statusOf(checkpoint.Info{Step: 2, Dir: "a"}, &checkpoint.Checkpoint{}, nil),
		statusOf(checkpoint.Info{Step: 4, Dir: "b"}, nil, &os.PathError{Op: "open", Path: "b/model", Err: os.ErrPermission}),
		statusOf(checkpoint.Info{Step: 6, Dir: "c"}, nil, errors.New("c/model: the file is corrupt")),
	}
	var text bytes.Buffer
	for _, s := range list {
		if err := verifiedCheckpoint(&text, s); err != nil {
			t.Fatal(err)
		}
	}
	if want := "good     a\nUNREADABLE open b/model: permission denied\nDAMAGED  c/model: the file is corrupt\n"; text.String() != want {
		t.Errorf("verify says\n%s, want\n%s", &text, want)
	}
	text.Reset()
	if err := listText(&text, list); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"step ", "0 ", "4     ", "6     "} {
		if line := strings.Split(text.String(), "\n")[i]; !strings.HasPrefix(line, want) || strings.Contains(line, "UNREADABLE") != (i == 2) || strings.Contains(line, "DAMAGED") != (i == 3) {
			t.Errorf("ls says %q in line %d", line, i)
		}
	}
}

// TestDiffText: of many tensors the most different ones are shown, of parameters and of moments.
func TestDiffText(t *testing.T) {
	d := &checkpoint.Difference{Equal: 3, State: []string{"step: 1 and 2"}}
	add := func(part, name string, relative float64, note string) {
		d.Tensors = append(d.Tensors, checkpoint.TensorDifference{Name: name, Part: part, Max: 1, Relative: checkpoint.Float(relative), Note: note})
	}
	for i := range 11 {
		add("model", fmt.Sprintf("w%02d", i), float64(i), "")
	}
	add("model", "nan", math.NaN(), "")
	add("model", "shape", 0, "has shapes [1] and [2]")
	add("optimizer", "m1", 1, "")
	add("optimizer", "m2", 2, "")
	names := func(all bool) string {
		t.Helper()
		var text bytes.Buffer
		if err := diffText(&text, d, all); err != nil {
			t.Fatal(err)
		}
		var first []string
		for line := range strings.Lines(text.String()) {
			first = append(first, strings.Fields(line)[0])
			if strings.Contains(line, "more") {
				first = append(first, strings.TrimSpace(line))
			}
		}
		return strings.Join(first, " ")
	}
	if got, want := names(false), "step: tensor nan shape w10 w09 w08 w07 w06 w05 w04 w03 3 3 parameters more; --all shows them m1 m2 3"; got != want {
		t.Errorf("shown are\n%s, want\n%s", got, want)
	}
	if got, want := names(true), "step: tensor w00 w01 w02 w03 w04 w05 w06 w07 w08 w09 w10 nan shape m1 m2 3"; got != want {
		t.Errorf("all are\n%s, want\n%s", got, want)
	}
}
