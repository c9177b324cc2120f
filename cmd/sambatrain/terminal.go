package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// forPeople is w for text that a model made up. Where w is a terminal, control characters in it
// are shown, as \x1b, rather than obeyed: a model of bytes may come upon any. Files and pipes get
// the text as it is.
func forPeople(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return shown{w}
	}
	return w
}

// shown writes control characters but tabs and ends of lines as \x and their code.
type shown struct{ w io.Writer }

func (s shown) Write(p []byte) (int, error) {
	var text []byte
	for _, b := range p {
		if b == '\n' || b == '\t' || b >= ' ' && b != 0x7f { // later bytes of a character in UTF-8 are above
			text = append(text, b)
		} else {
			text = fmt.Appendf(text, `\x%02x`, b)
		}
	}
	if _, err := s.w.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}
