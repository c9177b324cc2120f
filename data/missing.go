package data

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// absentError says that a file or folder does not exist here: it is an fs.ErrNotExist.
type absentError struct{ text string }

func (e *absentError) Error() string        { return e.text }
func (e *absentError) Is(target error) bool { return target == fs.ErrNotExist }

func absentf(format string, args ...any) error {
	return &absentError{fmt.Sprintf(format, args...)}
}

// Missing returns what Prepare would need and does not exist here, one error for each source: its
// folder of text if it has no shards yet. err says what is there but wrong, such as shards made from
// other settings. Of shards only the manifest is read, of text nothing. The tokenizer is not reported;
// if it does not exist, shards are not compared with it.
func (c Config) Missing() (missing []error, err error) {
	if c.Generate.Task != "" {
		return nil, nil
	}
	for i, s := range c.sources() {
		err := s.config.available()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, c.inSource(i, err))
		case err != nil:
			return nil, c.inSource(i, err)
		}
	}
	return missing, nil
}

// available returns an error, which may be an fs.ErrNotExist, unless there are shards, or text to make
// them from.
func (c Config) available() error {
	dir, err := c.shardsFolder()
	if err != nil {
		return err
	}
	switch _, ok, err := c.prepared(watching(context.Background()), dir); {
	case errors.Is(err, fs.ErrNotExist): // the tokenizer
		return nil
	case ok || err != nil:
		return err
	}
	_, err = c.textFor(dir)
	return err
}
