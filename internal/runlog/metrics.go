package runlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// Metrics appends records to a metrics.jsonl: one JSON object per line. It is not safe for
// concurrent use.
type Metrics struct {
	out *appendFile
}

// Create starts a new metrics.jsonl. An existing file is never overwritten; it is an error
// (fs.ErrExist).
func Create(path string) (*Metrics, error) {
	out, err := openAppend(path, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	return &Metrics{out: out}, nil
}

// Append writes one record. When it returns, the record survives the process being killed; to make
// it survive a power cut too, call Sync.
//
// For a resumed run to have the same metrics as an uninterrupted one, append the training and
// validation records of step s, and Sync, before the checkpoint of step s is written.
func (m *Metrics) Append(r Record) error {
	line, err := r.MarshalJSON()
	if err != nil {
		return err
	}
	return m.out.append(append(line, '\n'))
}

// Sync flushes the records to disk.
func (m *Metrics) Sync() error { return m.out.sync() }

// Close syncs and closes the file.
func (m *Metrics) Close() error { return m.out.close() }

// Torn is the incomplete last line of a metrics.jsonl, left by a process that died while it wrote.
type Torn struct {
	Path  string
	Line  int // counted from 1
	Bytes int // bytes of it that were written
}

func (t *Torn) String() string {
	return fmt.Sprintf("%s:%d: last line is incomplete (%d bytes of a record) and was left out", t.Path, t.Line, t.Bytes)
}

// Read returns the records of a metrics.jsonl in file order, which is the order in which they were
// made. torn is nil unless the file ends in an incomplete line. Anything else that is not a record
// is an error that names the file and the line.
func Read(path string) (records []Record, torn *Torn, err error) {
	torn, err = scan(path, func(_ []byte, r Record) error {
		records = append(records, r)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return records, torn, nil
}

// Cut says what Reopen removed.
type Cut struct {
	Records int   // training, skipped and validation records of later steps
	Torn    *Torn // the incomplete last line, nil if there was none
	Kept    int   // remaining training records
}

// Reopen opens a metrics.jsonl to continue from the checkpoint of `step`. A process that died after
// that checkpoint has left records of steps that will be repeated, and perhaps an incomplete line.
// Reopen removes that line and the training and validation records with a Step above `step`,
// including those of skipped steps, and keeps the rest byte for byte. Other events are all kept,
// since they did happen: a later step's checkpoint that turned out to be damaged stays on record.
//
// The shortened file replaces the old one in one step, so that a crash leaves one of the two complete.
// A missing file is fs.ErrNotExist.
func Reopen(path string, step int) (*Metrics, Cut, error) {
	var cut Cut
	err := wholefile.WriteBy(path, func(w io.Writer) (err error) {
		cut, err = copyUntil(w, path, step)
		return err
	})
	if err != nil {
		return nil, Cut{}, err
	}
	if err := wholefile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, Cut{}, err
	}
	out, err := openAppend(path, 0)
	if err != nil {
		return nil, Cut{}, err
	}
	return &Metrics{out: out}, cut, nil
}

func copyUntil(dst io.Writer, path string, step int) (Cut, error) {
	var cut Cut
	w := bufio.NewWriter(dst)
	torn, err := scan(path, func(line []byte, r Record) error {
		again := r.Kind != KindEvent || r.Event.Name == EventSkipped
		if again && r.Step > step {
			cut.Records++
			return nil
		}
		if r.Kind == KindTrain {
			cut.Kept++
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		return w.WriteByte('\n')
	})
	if err != nil {
		return Cut{}, err
	}
	cut.Torn = torn
	return cut, w.Flush()
}

// scan calls visit for each record of the file, with its line, which visit must not retain.
func scan(path string, visit func(line []byte, r Record) error) (*Torn, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if len(line) == 0 {
			return nil, nil
		}
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		// No prefix of an object is an object, so a last line that only lacks its newline can be
		// distinguished from an incomplete one.
		if !whole && !json.Valid(line) {
			return &Torn{Path: path, Line: n, Bytes: len(line)}, nil
		}
		var r Record
		if err := r.UnmarshalJSON(line); err != nil {
			return nil, fmt.Errorf("%s:%d: not a record: %w; fix or delete this line", path, n, err)
		}
		if err := visit(line, r); err != nil {
			return nil, err
		}
	}
}
