package runlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func writeMetrics(t *testing.T, path string, records ...Record) {
	t.Helper()
	m, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := m.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func appendText(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func line(t *testing.T, r Record) string {
	t.Helper()
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestAppendIsThereAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for step := 1; step <= 3; step++ {
		if err := m.Append(sampleTrain(step)); err != nil {
			t.Fatal(err)
		}
		records, torn, err := Read(path)
		if err != nil || torn != nil || len(records) != step {
			t.Fatalf("after %d records Read gives %d, torn %v, error %v", step, len(records), torn, err)
		}
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	writeMetrics(t, path, sampleTrain(1))
	if _, err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want fs.ErrExist", err)
	}
	if got := readText(t, path); got != line(t, sampleTrain(1)) {
		t.Errorf("the file became %q", got)
	}
}

func TestReadTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	writeMetrics(t, path, sampleTrain(1))
	whole := line(t, sampleTrain(2))
	for n := 1; n < len(whole)-1; n++ {
		if err := os.WriteFile(path, []byte(line(t, sampleTrain(1))+whole[:n]), 0o644); err != nil {
			t.Fatal(err)
		}
		records, torn, err := Read(path)
		if err != nil || len(records) != 1 || torn == nil || *torn != (Torn{path, 2, n}) {
			t.Fatalf("with %d bytes of line 2: %d records, torn %v, error %v", n, len(records), torn, err)
		}
	}
	want := path + ":2: last line is incomplete (7 bytes of a record) and was left out"
	if got := (&Torn{path, 2, 7}).String(); got != want {
		t.Errorf("Torn says %q, want %q", got, want)
	}
}

func TestReadLineThatLacksOnlyItsNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	text := line(t, sampleTrain(1)) + line(t, sampleTrain(2))
	if err := os.WriteFile(path, []byte(strings.TrimSuffix(text, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	records, torn, err := Read(path)
	if err != nil || torn != nil || len(records) != 2 {
		t.Fatalf("%d records, torn %v, error %v", len(records), torn, err)
	}
	m, cut, err := Reopen(path, 2)
	if err != nil || cut != (Cut{Kept: 2}) {
		t.Fatalf("cut %+v, error %v", cut, err)
	}
	if err := errors.Join(m.Append(sampleTrain(3)), m.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := readText(t, path), text+line(t, sampleTrain(3)); got != want {
		t.Errorf("the file became\n%s", got)
	}
}

func TestReadNamesTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	good := line(t, sampleTrain(1))
	for name, text := range map[string]string{
		"no JSON":           good + "loss 2.3\n" + good,
		"blank line":        good + "\n" + good,
		"torn in the midst": good + good[:20] + "\n" + good,
		"two on a line":     good + strings.TrimSuffix(good, "\n") + good,
		"unknown key":       good + `{"step":1,"event":"x","detail":"","who":"me","time":"2026-03-04T12:00:00Z"}` + "\n",
		"last and complete": good + `{"step":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, _, err := Read(path)
			if err == nil || !strings.HasPrefix(err.Error(), path+":2: not a record: ") || !strings.HasSuffix(err.Error(), "; fix or delete this line") {
				t.Errorf("Read: %v", err)
			}
			if _, _, err := Reopen(path, 1); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") {
				t.Errorf("Reopen: %v", err)
			}
			if got := readText(t, path); got != text {
				t.Error("Reopen changed a file that it refused")
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("left beside the metrics: %v, error %v", left, err)
			}
		})
	}
}

func TestReopen(t *testing.T) {
	checkpoint := func(step int) Record { return EventRecord(step, noon, EventCheckpoint, "") }
	val := func(step int) Record { return ValRecord(step, noon, Val{Loss: 2, BitsPerByte: 3}) }
	history := []Record{
		sampleTrain(1), sampleTrain(2), val(2), checkpoint(2),
		EventRecord(3, noon, EventSkipped, ""), sampleTrain(4), val(4), checkpoint(4), sampleTrain(5),
	}
	for _, c := range []struct {
		name   string
		step   int
		tail   string
		cut    int
		remain []Record
	}{
		{"nothing to cut", 5, "", 0, history},
		{"after the last checkpoint", 4, "", 1, history[:8]},
		{"torn line", 4, `{"step":6,"lo`, 1, history[:8]},
		{"only a torn line", 5, `{`, 0, history},
		{"the checkpoint before", 2, "", 4, append(slices.Clone(history[:4]), checkpoint(4))},
		{"from the start", 0, "", 7, []Record{checkpoint(2), checkpoint(4)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "metrics.jsonl")
			writeMetrics(t, path, history...)
			appendText(t, path, c.tail)
			m, cut, err := Reopen(path, c.step)
			if err != nil {
				t.Fatal(err)
			}
			if cut.Records != c.cut || (cut.Torn != nil) != (c.tail != "") {
				t.Errorf("cut %+v, want %d records, torn line %q", cut, c.cut, c.tail)
			}
			trained := 0
			for _, r := range c.remain {
				if r.Kind == KindTrain {
					trained++
				}
			}
			if cut.Kept != trained {
				t.Errorf("%d training records are kept, want %d", cut.Kept, trained)
			}
			next := sampleTrain(c.step + 1)
			if err := errors.Join(m.Append(next), m.Close()); err != nil {
				t.Fatal(err)
			}
			got, torn, err := Read(path)
			if err != nil || torn != nil {
				t.Fatalf("torn %v, error %v", torn, err)
			}
			if want := append(slices.Clone(c.remain), next); !reflect.DeepEqual(got, want) {
				t.Errorf("got %d records %v\nwant %d", len(got), got, len(want))
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left beside the metrics: %v, error %v", entries, err)
			}
		})
	}
}

// Lines that stay are copied, not rewritten: a hand-written line keeps its spaces and order.
func TestReopenKeepsBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	text := `{ "time": "2026-03-04T13:00:00+01:00", "val_bits_per_byte": 3.0, "val_loss": 2e0, "step": 1 }` + "\n"
	if err := os.WriteFile(path, []byte(text+line(t, sampleTrain(2))), 0o644); err != nil {
		t.Fatal(err)
	}
	m, _, err := Reopen(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readText(t, path); got != text {
		t.Errorf("the line became %q", got)
	}
}

// TestReopenBesideLeftOver: whatever is next to the metrics is neither used nor in the way.
func TestReopenBesideLeftOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	writeMetrics(t, path, sampleTrain(1), sampleTrain(2))
	if err := os.Mkdir(path+".tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	m, cut, err := Reopen(path, 1)
	if err != nil || cut.Records != 1 {
		t.Fatalf("cut %+v, error %v", cut, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readText(t, path); got != line(t, sampleTrain(1)) {
		t.Errorf("the file became %q", got)
	}
}

// TestReopenTogether: several processes that reopen the same metrics leave them complete.
func TestReopenTogether(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.jsonl")
	const steps = 200
	var records []Record
	for i := range steps {
		records = append(records, sampleTrain(i+1))
	}
	writeMetrics(t, path, records...)
	want := readText(t, path)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				m, cut, err := Reopen(path, steps)
				if err != nil || cut.Kept != steps || cut.Torn != nil {
					t.Errorf("cut %+v, error %v", cut, err)
					return
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := readText(t, path); got != want {
		t.Errorf("the metrics have %d bytes, want %d", len(got), len(want))
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left beside the metrics: %v, error %v", left, err)
	}
}

// TestReopenThroughLink: metrics that are kept elsewhere stay there.
func TestReopenThroughLink(t *testing.T) {
	to, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "metrics.jsonl")
	writeMetrics(t, to, sampleTrain(1), sampleTrain(2))
	if err := os.Symlink(to, link); err != nil {
		t.Skip(err)
	}
	m, _, err := Reopen(link, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Append(sampleTrain(2)), m.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := readText(t, to), line(t, sampleTrain(1))+line(t, sampleTrain(2)); got != want {
		t.Errorf("the file is %q", got)
	}
}

func TestMissingMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	if _, _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read: %v", err)
	}
	if _, _, err := Reopen(path, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reopen: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("Reopen left %v, error %v", left, err)
	}
}

// fullDisk accepts `room` bytes and then fails like a full disk, with a part of the write done.
type fullDisk struct {
	data       []byte
	room       int
	noTruncate bool
}

func (d *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.room-len(d.data))
	d.data = append(d.data, p[:n]...)
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *fullDisk) Truncate(size int64) error {
	if d.noTruncate {
		return syscall.EIO
	}
	d.data = d.data[:size]
	return nil
}

func (*fullDisk) Sync() error  { return nil }
func (*fullDisk) Close() error { return nil }

func TestAppendOnFullDisk(t *testing.T) {
	first, second := line(t, sampleTrain(1)), line(t, sampleTrain(2))
	disk := &fullDisk{room: len(first) + 10}
	m := &Metrics{out: &appendFile{f: disk}}
	if err := m.Append(sampleTrain(1)); err != nil {
		t.Fatal(err)
	}
	if err := m.Append(sampleTrain(2)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want no space", err)
	}
	if string(disk.data) != first {
		t.Fatalf("a part of a record is left: %q", disk.data)
	}
	disk.room = 10000
	if err := m.Append(sampleTrain(2)); err != nil || string(disk.data) != first+second {
		t.Fatalf("with room again: error %v, file %q", err, disk.data)
	}

	// If a partial record can't be cut off, nothing may be written after it: the file would be
	// damaged in the middle.
	disk.room, disk.noTruncate = len(disk.data)+10, true
	if err := m.Append(sampleTrain(3)); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("error %v, want both reasons", err)
	}
	disk.room = 10000
	before := len(disk.data)
	if err := m.Append(sampleTrain(3)); err == nil || len(disk.data) != before {
		t.Fatalf("wrote %d bytes behind half a record, error %v", len(disk.data)-before, err)
	}
}
