//go:build unix

package runlog

import (
	"errors"
	"os"
)

// syncDir flushes a rename in dir to disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
