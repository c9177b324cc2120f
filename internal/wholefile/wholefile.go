// Package wholefile writes files atomically: complete or not at all.
package wholefile

import (
	"errors"
	"fmt"
	"os"
)

// Write writes content to the file at path. It is written to a temporary file, flushed to disk, and
// then renamed, so that readers of the path find either the previous content or all of the new one.
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
