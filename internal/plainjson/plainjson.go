// Package plainjson writes JSON without escaping <, > and &: code is full of them, and nothing here
// is embedded in HTML.
package plainjson

import (
	"bytes"
	"encoding/json"
)

// Line returns v as one line, including the newline. Values that JSON can't represent are an error.
func Line(v any) ([]byte, error) { return encode(v, "") }

// Indented returns v on several lines, for people and programs.
func Indented(v any) ([]byte, error) { return encode(v, "  ") }

func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return b.Bytes(), err
}
