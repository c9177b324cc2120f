package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// journalName is a file in a folder that is being prepared.
const journalName = "prepare.json"

// journal says how far a prepare has come: what is in complete shards on disk, and where in the
// text to continue. The result is the same as without a stop.
type journal struct {
	dir   string
	files []sourceFile
	watch Watch

	Settings  Settings `json:"settings"`
	Tokenizer string   `json:"tokenizer"`
	Layout    layout   `json:"layout"`
	// Read identifies the files up to the one of Next by names, sizes and modification times.
	Read       string    `json:"read"`
	Next       position  `json:"next"`
	Train      SplitInfo `json:"train"`
	Validation SplitInfo `json:"validation"`
	Progress   Progress  `json:"progress"`
	Empty      int64     `json:"empty"`
}

// resume reads the journal in dir, and removes what is not in it. If there is none, or one of
// another job, it empties the folder.
func (j *journal) resume() error {
	var saved journal
	raw, err := os.ReadFile(filepath.Join(j.dir, journalName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		why := "its " + journalName + " is damaged"
		if json.Unmarshal(raw, &saved) == nil && saved.sound() {
			why = j.differs(saved)
		}
		if why == "" {
			slog.Info("continuing an unfinished prepare", "folder", j.dir, "files", saved.Progress.Files, "mb", saved.Progress.Bytes/1e6)
			saved.dir, saved.files, saved.watch = j.dir, j.files, j.watch
			*j = saved
			return j.clean()
		}
		slog.Warn("starting an unfinished prepare over", "folder", j.dir, "because", why)
	}
	empty := func() SplitInfo { return SplitInfo{ByteCounts: make([]int64, 256), Shards: []Shard{}} }
	j.Train, j.Validation = empty(), empty()
	defer j.watch("clearing " + j.dir)()
	if err := os.RemoveAll(j.dir); err != nil {
		return err
	}
	return os.Mkdir(j.dir, 0o755)
}

// sound reports whether a journal could have been saved.
func (j *journal) sound() bool {
	m := Manifest{Tokenizer: TokenizerInfo{VocabSize: 1}, Train: j.Train, Validation: j.Validation}
	return j.Next.File >= 0 && j.Next.Document >= 0 && len(j.Train.ByteCounts) == 256 && len(j.Validation.ByteCounts) == 256 && m.validate() == nil
}

// differs says why the saved journal is not of this job; "" if it is.
func (j *journal) differs(saved journal) string {
	switch {
	case len(j.Settings.differences(saved.Settings)) > 0:
		return "its settings have changed"
	case j.Tokenizer != saved.Tokenizer:
		return "its tokenizer is another"
	case j.Layout != saved.Layout:
		return "it was written by another version"
	case saved.Next.File > len(j.files):
		return "there are fewer files"
	}
	j.Next = saved.Next
	read, err := j.read()
	j.Next = position{}
	switch {
	case err != nil:
		return err.Error()
	case read != saved.Read:
		return "files that it has read have changed"
	}
	for _, s := range slices.Concat(saved.Train.Shards, saved.Validation.Shards) {
		if info, err := j.look(filepath.Join(j.dir, s.File)); err != nil || info.Size() != s.Size {
			return fmt.Sprintf("its shard %s is missing or has changed", s.File)
		}
	}
	return ""
}

// read identifies the files that have been read from.
func (j *journal) read() (string, error) {
	hash := xxh3.New()
	for _, f := range j.files[:min(j.Next.File+1, len(j.files))] {
		info, err := j.look(f.path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%q %d %d\n", f.name, info.Size(), info.ModTime().UnixNano())
	}
	return fmt.Sprintf("%016x", hash.Sum64()), nil
}

func (j *journal) look(path string) (fs.FileInfo, error) {
	defer j.watch("looking at " + path)()
	return os.Stat(path)
}

// clean removes files that were being written.
func (j *journal) clean() error {
	defer j.watch("clearing " + j.dir)()
	keep := map[string]bool{journalName: true}
	for _, s := range slices.Concat(j.Train.Shards, j.Validation.Shards) {
		keep[s.File] = true
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.RemoveAll(filepath.Join(j.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// save writes the journal, completely or not at all.
func (j *journal) save() (err error) {
	if j.Read, err = j.read(); err != nil {
		return err
	}
	path := filepath.Join(j.dir, journalName)
	if err := writeSynced(j.watch, path+".new", mustJSON(j)); err != nil {
		return err
	}
	defer j.watch("renaming " + path)()
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return wholefile.SyncDir(j.dir)
}

// removeJournal ends the job that filled dir.
func removeJournal(dir string) error {
	if err := os.Remove(filepath.Join(dir, journalName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data.shards: %w", err)
	}
	return nil
}

// removeUnlessSaved removes a folder that a prepare could not continue from.
func removeUnlessSaved(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, journalName)); err == nil {
		return nil
	}
	return os.RemoveAll(dir)
}
