// Package shell writes commands that a message suggests.
package shell

import (
	"runtime"
	"strings"
	"unicode"
)

// Quote returns text as one word of a command line: unchanged if no shell would split or interpret
// it, otherwise in quotes.
func Quote(text string) string {
	windows := runtime.GOOS == "windows"
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("%+,-./:=@_", r) && !(windows && r == '\\')
	}
	switch {
	case text != "" && !strings.ContainsFunc(text, special):
		return text
	case windows: // where paths can't contain a "
		return `"` + text + `"`
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// Command returns a command line of these words.
func Command(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}
