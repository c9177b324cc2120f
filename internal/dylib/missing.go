// Package dylib loads shared libraries at run time, so that one binary runs with and
// without them.
package dylib

import "strings"

// Missing is the error of a library that was not found.
type Missing struct {
	Names []string // of which one is needed
	// Searched says, after "looked", where all libraries are looked for.
	Searched string
}

func (m *Missing) Error() string { return "no " + strings.Join(m.Names, " or ") + m.Where() }

// Where is the end of the error's text: where it was looked for, and what to do.
func (m *Missing) Where() string {
	return ": looked " + m.Searched + "; install it, or name its folder in LD_LIBRARY_PATH"
}
