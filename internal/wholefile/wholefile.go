// Package wholefile writes files atomically: complete or not at all.
package wholefile

import (
	"errors"
	"fmt"
	"os"
)

// Write puts content into the file at path: beside its place, flushed to the disk, and then
// renamed, so that whoever reads the path finds what was there before, or all of content.
func Write(path string, content []byte) error {
	beside := path + ".tmp"
	f, err := os.Create(beside)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		os.Remove(beside)
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
