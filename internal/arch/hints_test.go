package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// byHand matches a command with operands that is formatted into a text, such as `sambatrain resume %s`.
var byHand = regexp.MustCompile(`sambatrain (resume|finetune|generate|eval|export|import|checkpoint|data)( [a-z]+)? %[sqv]`)

// TestHints: what a message suggests to type is written by shell.Command or, if it continues a run,
// by train's resumeCommand. They quote, and repeat the flags that the user gave.
func TestHints(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, s.file))
		if err != nil {
			t.Fatal(err)
		}
		if hint := byHand.Find(text); hint != nil {
			t.Errorf("%s formats %q itself: use shell.Command or resumeCommand", s.file, hint)
		}
	}
}
