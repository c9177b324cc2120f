package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// makeFolder makes the folder that --out names, and those above it, before what is long is done for
// it. The function tidy removes those of them that stayed empty.
func makeFolder(path string) (tidy func(), err error) {
	var made []string // the innermost first
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		made = append(made, dir)
	}
	tidy = func() {
		for _, dir := range made {
			if os.Remove(dir) != nil { // there is something in it, and so in those above
				return
			}
		}
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		tidy()
		return nil, fmt.Errorf("--out: %w", err)
	}
	return tidy, nil
}
