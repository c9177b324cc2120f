package main

import (
	"bytes"
	"errors"
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
