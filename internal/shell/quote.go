// Package shell quotes words of commands that a message asks a person to type.
package shell

import (
	"runtime"
	"strings"
	"unicode"
)

// Quote is text as one word of a command line: as it is where no shell takes it apart, else in quotes.
func Quote(text string) string {
	windows := runtime.GOOS == "windows"
	special := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("%+,-./:=@_", r) && !(windows && r == '\\')
	}
	switch {
	case text != "" && !strings.ContainsFunc(text, special):
		return text
	case windows: // where no path has a "
		return `"` + text + `"`
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
