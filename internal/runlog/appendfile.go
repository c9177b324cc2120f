package runlog

import (
	"errors"
	"fmt"
	"os"
)

// appendFile appends complete records to a file, each with one write that has reached the operating
// system when it returns: killing the process loses at most the record being written.
type appendFile struct {
	f    file
	size int64 // of the complete records in f
	err  error // set if f ends in a partial record that could not be cut off
}

// file is the part of *os.File that appendFile needs; tests replace it by a full disk.
type file interface {
	Write([]byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

func openAppend(path string, flags int) (*appendFile, error) {
	f, err := os.OpenFile(path, flags|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &appendFile{f: f, size: info.Size()}, nil
}

// append writes one record. If that fails (for example on a full disk) it removes what was written
// of the record, so that the file stays readable and a later append may succeed.
func (a *appendFile) append(record []byte) error {
	if a.err != nil {
		return a.err
	}
	if _, err := a.f.Write(record); err != nil {
		if cut := a.f.Truncate(a.size); cut != nil {
			a.err = fmt.Errorf("%w; a part of a record is left at the file's end: %w", err, cut)
			return a.err
		}
		return err
	}
	a.size += int64(len(record))
	return nil
}

func (a *appendFile) sync() error { return a.f.Sync() }

func (a *appendFile) close() error { return errors.Join(a.f.Sync(), a.f.Close()) }
