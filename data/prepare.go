package data

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// Progress says how far Prepare has come.
type Progress struct {
	Files, FilesTotal int
	Documents         int64 // written; empty ones are not counted
	Bytes             int64 // of text
	Tokens            int64
	Resumed           int64 // the part of Bytes from an earlier process

	// IDs is how many TrainTokenizer has found, after it has read all files.
	IDs int `json:"-"`
}

// What is next to a folder of shards while it is made: the folder that gets its name in the end, and the
// file that keeps other processes from making it.
const (
	partialSuffix = ".partial"
	lockSuffix    = ".lock"
)

// Prepare makes the folder of shards that c describes, and returns its manifest. A folder that was
// made from the same settings is used unchanged; one made from others is an error.
//
// The folder appears under its name when it is complete. A prepare that was stopped or killed
// continues after its last complete shards, if settings, tokenizer and the files up to there are
// the same. Of two processes that prepare the same folder, one waits for the other and uses the
// result: the writer locks the file <shards>.lock, and removes it at the end. Equal text gives equal
// shards, byte for byte, on any number of cores.
//
// progress, which may be nil, is called from time to time, from one goroutine at a time, while
// shards are written.
func Prepare(ctx context.Context, c Config, progress func(Progress)) (Manifest, error) {
	return prepare(ctx, c, defaultLayout, progress)
}

// PrepareAll is Prepare for each source of a mixture, or for c itself without one. All sources are
// checked before one is prepared.
func PrepareAll(ctx context.Context, c Config, progress func(Progress)) error {
	if len(c.Mixture) > 1 {
		if err := c.checkSources(ctx); err != nil {
			return err
		}
	}
	for i, s := range c.sources() {
		if _, err := Prepare(ctx, s.config, progress); err != nil {
			return c.inSource(i, err)
		}
	}
	return nil
}

// CheckHeldOut reports that the shards that Prepare would make have no validation split, before any
// text is read. Shards that exist may have one, whatever c says.
func (c Config) CheckHeldOut() error {
	for _, s := range c.sources() {
		dir, err := expand("data.shards", s.config.Shards)
		if err != nil {
			return nil // Prepare reports it
		}
		if _, err := os.Stat(dir); err == nil || c.ValidationFraction > 0 || len(s.config.Text.Validation) > 0 || c.Generate.Task != "" {
			return nil
		}
	}
	return errors.New("data.validation_fraction: is 0, but a run needs a validation split: raise it, or name files in data.text.validation")
}

func prepare(ctx context.Context, c Config, l layout, progress func(Progress)) (Manifest, error) {
	if err := c.Validate(); err != nil {
		return Manifest{}, err
	}
	if c.Generate.Task != "" {
		return Manifest{}, nil
	}
	watch := watching(ctx)
	dir, err := c.shardsFolder()
	if err != nil {
		return Manifest{}, err
	}
	if m, ok, err := c.prepared(watch, dir); ok || err != nil {
		return m, err
	}
	folder, err := c.textFor(dir)
	if err != nil {
		return Manifest{}, err
	}

	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %w", err)
	}
	unlock, err := lockShards(ctx, dir+lockSuffix)
	if err != nil {
		return Manifest{}, err
	}
	defer unlock()
	// Another process may have finished while this one waited.
	if m, ok, err := c.prepared(watch, dir); ok || err != nil {
		return m, err
	}
	partial := dir + partialSuffix
	m, err := c.writeFolder(ctx, folder, dir, l, progress)
	if err == nil {
		err = publish(watch, partial, dir)
	}
	if err != nil {
		return Manifest{}, errors.Join(err, removeUnlessSaved(partial))
	}
	// The journal goes last: a process that is killed before can continue.
	return m, removeJournal(dir)
}

// shardsFolder returns Shards with its variables replaced and links followed.
func (c Config) shardsFolder() (string, error) {
	dir, err := expand("data.shards", c.Shards)
	if err != nil {
		return "", err
	}
	if dir, err = wholefile.Behind(dir); err != nil {
		return "", fmt.Errorf("data.shards: %w", err)
	}
	return dir, nil
}

// textFor returns the folder of the text that shards are made from in the folder dir.
func (c Config) textFor(dir string) (string, error) {
	if c.Text.Path == "" {
		return "", absentf("data.shards: no folder %s, and data.text.path is empty: name a folder of shards, or one of text to make them from", dir)
	}
	return c.Text.folder()
}

// prepared returns the manifest of dir if it contains shards made from c's settings; ok is false if
// dir is absent or empty.
func (c Config) prepared(w Watch, dir string) (m Manifest, ok bool, err error) {
	defer w("reading " + dir)()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return Manifest{}, false, nil
	}
	if err != nil {
		return Manifest{}, false, fmt.Errorf("data.shards: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, manifestName)); errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, false, fmt.Errorf("data.shards: %s has files but no %s, so it is not a complete folder of shards: choose another folder or delete it", dir, manifestName)
	}
	m, err = ReadManifest(dir)
	if err != nil {
		return Manifest{}, false, err
	}
	if err := c.checkTokenizer(dir, m); err != nil {
		return Manifest{}, false, err
	}
	if m.Source != nil && c.Text.Path != "" {
		if diff := m.Source.Settings.differences(c.settings()); len(diff) > 0 {
			return Manifest{}, false, fmt.Errorf("data.shards: %s was made from other settings (%s): choose another folder or delete it", dir, strings.Join(diff, "; "))
		}
	}
	return m, true, nil
}

func (c Config) checkTokenizer(dir string, m Manifest) error {
	tok, err := NewTokenizer(c.Tokenizer)
	if err != nil {
		return fmt.Errorf("data.tokenizer: %w", err)
	}
	want := Describe(tok)
	want.Name = m.Tokenizer.Name // a path, which may change
	if m.Tokenizer != want {
		return fmt.Errorf("data.tokenizer: %s was made with tokenizer %s (%s), the recipe names %s (%s): change data.tokenizer, or choose another folder for data.shards",
			dir, m.Tokenizer.Name, m.Tokenizer.Fingerprint, tok.Name(), want.Fingerprint)
	}
	return nil
}

// writeFolder writes the shards of folder's text and then the manifest into dir's partial folder, which
// contains at most what a killed process left there.
func (c Config) writeFolder(ctx context.Context, folder, dir string, l layout, progress func(Progress)) (Manifest, error) {
	tok, err := NewTokenizer(c.Tokenizer)
	if err != nil {
		return Manifest{}, fmt.Errorf("data.tokenizer: %w", err)
	}
	files, notRegular, err := listFiles(ctx, folder, dir, c.Text)
	if err != nil {
		return Manifest{}, err
	}
	if notRegular > 0 {
		slog.Warn("links and special files are not read", "folder", folder, "number", notRegular)
	}
	settings, watch, partial := c.settings(), watching(ctx), dir+partialSuffix
	job := journal{dir: partial, watch: watch, files: files, Settings: settings, Tokenizer: Describe(tok).Fingerprint, Layout: l}
	if err := job.resume(); err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %w", err)
	}
	source := settings.fingerprint()
	p := preparer{
		config: c, folder: folder, tok: tok, layout: l, progress: progress,
		train:      newSplitWriter(watch, partial, Train, tok, source, l, job.Train),
		validation: newSplitWriter(watch, partial, Validation, tok, source, l, job.Validation),
		done:       job.Progress, empty: job.Empty,
	}
	p.done.FilesTotal, p.done.Resumed = len(files), p.done.Bytes
	p.save = func(next position) error {
		job.Next, job.Train, job.Validation, job.Progress, job.Empty = next, p.train.info, p.validation.info, p.done, p.empty
		return job.save()
	}
	defer p.train.abandon()
	defer p.validation.abandon()
	if err := p.checkStart(ctx, files, job.Next); err != nil {
		return Manifest{}, err
	}
	if err := p.run(ctx, files, job.Next); err != nil {
		return Manifest{}, err
	}

	m := Manifest{
		Format:    formatVersion,
		Tokenizer: Describe(tok),
		Source:    &Source{Settings: settings, Folder: folder, Files: len(files), NotRegular: notRegular, EmptyDocuments: p.empty},
	}
	if m.Train, err = p.train.finish(); err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %w", err)
	}
	if m.Validation, err = p.validation.finish(); err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %w", err)
	}
	if err := checkSplits(m, c, folder); err != nil {
		return Manifest{}, err
	}
	if err := writeSynced(watch, filepath.Join(partial, manifestName), mustJSON(m)); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// publish gives the finished folder its name, in one step that survives a power failure.
func publish(w Watch, partial, dir string) error {
	defer w("renaming " + partial)()
	if err := wholefile.SyncDir(partial); err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	// An empty folder may be in the way; some systems do not rename over one.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data.shards: %w", err)
	}
	if err := os.Rename(partial, dir); err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	if err := wholefile.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	return nil
}

func writeSynced(w Watch, path string, content []byte) error {
	f, err := createWatched(w, path)
	if err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("data.shards: %w", err)
	}
	return nil
}
