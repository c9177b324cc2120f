package data

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// checkSources reports what is wrong with any source of a mixture, of what can be seen without reading
// all of it: preparing the others can take hours.
func (c Config) checkSources(ctx context.Context) error {
	folders := map[string]int{}
	for i, s := range c.sources() {
		dir, err := s.config.shardsFolder()
		if err != nil {
			return c.inSource(i, err)
		}
		if first, twice := folders[dir]; twice {
			return fmt.Errorf("data.mixture[%d].shards: %s is the folder of data.mixture[%d], too: add up the weights", i, s.config.Shards, first)
		}
		folders[dir] = i
		if err := s.config.check(ctx, dir); err != nil {
			return c.inSource(i, err)
		}
	}
	return nil
}

// check checks the shards in dir or, if there are none yet, the text that they are made from.
func (c Config) check(ctx context.Context, dir string) error {
	_, ok, err := c.prepared(watching(ctx), dir)
	if err != nil {
		return err
	}
	if ok {
		c.SkipVerify = true // Open reads all bytes
		train, err := openSplit(ctx, c, Train)
		if err == nil && train == nil {
			err = c.lacks(Train)
		}
		return err
	}
	folder, err := c.textFor(dir)
	if err != nil {
		return err
	}
	files, _, err := listFiles(ctx, folder, dir, c.Text)
	if err != nil {
		return err
	}
	p := preparer{config: c, folder: folder, train: &splitWriter{}, validation: &splitWriter{}}
	if err := p.checkStart(ctx, files, position{}); err != nil {
		return err
	}
	return checkWritable(filepath.Dir(dir))
}

// checkWritable makes the folder if it doesn't exist, and a file in it for a moment.
func checkWritable(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".sambatrain-*.tmp"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	return nil
}

// checkStart rejects text that can't be read or leaves a split empty, before any of it is tokenised. It
// reads from a position on until each split has a document: most texts have both soon.
func (p *preparer) checkStart(ctx context.Context, files []sourceFile, from position) error {
	c := p.config
	m := Manifest{Source: &Source{Files: len(files), EmptyDocuments: p.empty}}
	m.Train.Documents, m.Validation.Documents = p.train.info.Documents, p.validation.info.Documents
	heldOut := c.ValidationFraction > 0 || len(c.Text.Validation) > 0
	for _, f := range files[from.File:] {
		enough := func() bool { // the rest of this file changes nothing
			train, validation := m.Train.Documents > 0, m.Validation.Documents > 0 || !heldOut
			if len(c.Text.Validation) == 0 {
				return train && validation
			}
			return train && !f.validation || validation && f.validation
		}
		skip := from.Document
		from.Document = 0
		if enough() {
			continue
		}
		err := f.read(ctx, c.Text.JSONLField, skip, func(d rawDocument) error {
			text, err := p.text(d)
			switch {
			case err != nil:
				return err
			case len(text) == 0:
				m.Source.EmptyDocuments++
			case c.splitOf(text, f.validation) == Validation:
				m.Validation.Documents++
			default:
				m.Train.Documents++
			}
			if enough() {
				return fs.SkipAll
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, fs.SkipAll) {
			return err
		}
	}
	return checkSplits(m, c, p.folder)
}

// checkSplits rejects a result that no run could use.
func checkSplits(m Manifest, c Config, folder string) error {
	documents := m.Train.Documents + m.Validation.Documents
	switch {
	case documents == 0:
		return fmt.Errorf("data.text: there is no text in what was read from %s (files: %d, empty documents: %d): point data.text.path at other text", folder, m.Source.Files, m.Source.EmptyDocuments)
	case len(c.Text.Validation) > 0 && m.Train.Documents == 0:
		return fmt.Errorf("data.text.validation: all documents with text in %s are in files that match %q: leave some for training", folder, c.Text.Validation)
	case len(c.Text.Validation) > 0 && m.Validation.Documents == 0:
		return fmt.Errorf("data.text.validation: no document with text in %s is in a file that matches %q: change the patterns", folder, c.Text.Validation)
	case m.Train.Documents == 0:
		return fmt.Errorf("data.validation_fraction: every document (of %d) fell into the validation split at %v: lower it, or name files in data.text.validation", documents, c.ValidationFraction)
	case m.Validation.Documents == 0 && c.ValidationFraction > 0:
		return fmt.Errorf("data.validation_fraction: no document (of %d) fell into the validation split at %v: raise it, or name files in data.text.validation", documents, c.ValidationFraction)
	}
	return nil
}
