package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/internal/runlog"
)

// TestPromptProgress: where there is no terminal, a long prompt is reported every few seconds, each
// prompt for itself, and a short one is not.
func TestPromptProgress(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, test := range []struct {
		name  string
		piece time.Duration // time to read a quarter of the prompt
		want  []string
	}{
		{"long", 3 * time.Second, []string{"tokens=200 of=400 eta=6s", "tokens=400 of=400 eta=0s"}},
		{"short", time.Second, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				defer slog.SetDefault(slog.Default())
				slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
				read := promptProgress(runlog.NewCounter(f, "of the prompt"), &textWriter{}, 400)
				for range 2 {
					time.Sleep(time.Hour) // before its turn
					out.Reset()
					for done := 0; done <= 400; done += 100 {
						read(done)
						time.Sleep(test.piece)
					}
					var got []string
					for _, m := range regexp.MustCompile(`msg="reading the prompt" (.*)\n`).FindAllStringSubmatch(out.String(), -1) {
						got = append(got, m[1])
					}
					if diff := cmp.Diff(test.want, got); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				}
			})
		})
	}
}

// TestPromptFiles: a compressed file is no prompt.
func TestPromptFiles(t *testing.T) {
	for _, test := range []struct{ content, want string }{
		{"PKZIP", ""},
		{"PK\x03\x04", "--prompt-file: %s: is a zip archive, not text: unpack it, and name the text"},
		{"\x1f\x8b\x08", "--prompt-file: %s: is a gzip file, not text: unpack it, and name the text"},
	} {
		path := filepath.Join(t.TempDir(), "prompt")
		if err := os.WriteFile(path, []byte(test.content), 0o666); err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(test.want, "%s", path)
		prompts, err := (&generateOptions{files: []string{path}}).read(nil)
		switch {
		case want == "" && (err != nil || len(prompts) != 1 || prompts[0] != test.content):
			t.Errorf("%q: prompts are %q, %v", test.content, prompts, err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%q: error is %v, want %s", test.content, err, want)
		}
	}
}
