package data

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/ipc"
)

// writeTextArrow writes texts as the column text of that type next to another one: as a file, or else
// as a stream, the form that Hugging Face's datasets are saved in.
func writeTextArrow(t testing.TB, path string, file bool, text arrow.DataType, texts []string, options ...ipc.Option) {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "text", Type: text, Nullable: true},
	}, nil)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, ipc.WithSchema(schema))
	var w interface {
		Write(arrow.Record) error
		io.Closer
	} = ipc.NewWriter(f, options...)
	if file {
		if w, err = ipc.NewFileWriter(f, options...); err != nil {
			t.Fatal(err)
		}
	}
	writeRecords(t, schema, texts, w.Write)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadArrow(t *testing.T) {
	var texts []string
	for i := range 110 {
		texts = append(texts, strings.Repeat(fmt.Sprintf("row %d ", i), i%13))
	}
	dir := t.TempDir()
	for name, compressed := range map[string][]ipc.Option{"u": nil, "z": {ipc.WithZstd()}, "l": {ipc.WithLZ4()}} {
		for _, column := range []arrow.DataType{arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString} {
			for _, file := range []bool{false, true} {
				writeTextArrow(t, filepath.Join(dir, fmt.Sprintf("%s-%s-%t.arrow", name, column, file)), file, column, texts, compressed...)
			}
		}
	}
	checkRows(t, dir, texts)
}

func TestBadArrowText(t *testing.T) {
	content := func(file bool) string {
		good := filepath.Join(t.TempDir(), "x.arrow")
		writeTextArrow(t, good, file, arrow.BinaryTypes.String, []string{"one", "two", "three"})
		raw, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	stream, file := content(false), content(true)
	flipped := []byte(stream)
	for i := len(flipped) / 2; i < len(flipped)-8; i += 5 {
		flipped[i] ^= 0x55
	}
	for _, test := range []struct {
		content, field, want string
	}{
		{stream, "body", `data.text: DIR/x.arrow: no column "body" among [id text]: set data.text.jsonl_field`},
		{stream, "id", `data.text: DIR/x.arrow: column "id" is not a string: set data.text.jsonl_field`},
		{stream[:len(stream)-8], "text", "data.text: DIR/x.arrow: does not end as an Arrow file does: it was truncated, or its writer was not closed"},
		{file[:len(file)-8], "text", "data.text: DIR/x.arrow: does not end as an Arrow file does: it was truncated, or its writer was not closed"},
		{"not an Arrow file at all", "text", "data.text: DIR/x.arrow: does not begin as an Arrow file does"},
		{"", "text", "data.text: DIR/x.arrow: is too short for an Arrow file"},
		{string(flipped), "text", "data.text: DIR/x.arrow: "},
	} {
		checkRefused(t, "x.arrow", test.content, test.field, test.want)
	}
	checkRefused(t, "x.arrow.gz", stream, "text", "data.text: DIR/x.arrow.gz: can't be read while it is compressed as a whole: decompress it")
}

// TestDamagedArrowText: damage is an error, or other text, but doesn't exhaust memory or the stack.
func TestDamagedArrowText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, file := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "x.arrow")
		writeTextArrow(t, path, file, arrow.BinaryTypes.String, []string{"one", "two", "three"})
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for range 700 {
			damaged := bytes.Clone(raw)
			for range 1 + r.IntN(3) {
				damaged[8+r.IntN(len(damaged)-16)] = byte(r.IntN(256))
			}
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if ReadText(t.Context(), path, TextConfig{JSONLField: "text"}, func([]byte) error { return nil }) != nil {
				refused++
			}
		}
		if refused < 100 {
			t.Errorf("%d of 700 damaged files are refused", refused)
		}
	}
}
