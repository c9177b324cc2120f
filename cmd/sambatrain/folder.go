package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// makeFolder makes the folder that --out names, and its parents, before a long computation starts.
// The function tidy removes those that stayed empty.
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
			if os.Remove(dir) != nil { // it contains something, and so do those above
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
