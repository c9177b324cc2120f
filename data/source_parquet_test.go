package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/arrow/memory"
	"github.com/apache/arrow/go/v16/parquet"
	"github.com/apache/arrow/go/v16/parquet/compress"
	"github.com/apache/arrow/go/v16/parquet/pqarrow"
	"github.com/google/go-cmp/cmp"
)

// writeTextParquet writes texts as the column text next to another one, in small pages and row
// groups.
func writeTextParquet(t testing.TB, path string, codec compress.Compression, texts []string) {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pqarrow.NewFileWriter(schema, f, parquet.NewWriterProperties(parquet.WithCompression(codec), parquet.WithDataPageSize(200), parquet.WithBatchSize(3)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	writeRecords(t, schema, texts, w.Write)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeRecords writes texts, "" for null, with their numbers, in records of 25 rows.
func writeRecords(t testing.TB, schema *arrow.Schema, texts []string, write func(arrow.Record) error) {
	t.Helper()
	for len(texts) > 0 {
		b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
		n := min(25, len(texts))
		for i, text := range texts[:n] {
			b.Field(0).(*array.Int64Builder).Append(int64(i))
			if text == "" {
				b.Field(1).AppendNull()
			} else if err := b.Field(1).AppendValueFromString(text); err != nil {
				t.Fatal(err)
			}
		}
		if err := write(b.NewRecord()); err != nil {
			t.Fatal(err)
		}
		texts = texts[n:]
	}
}

func TestReadParquet(t *testing.T) {
	var texts []string
	for i := range 110 {
		texts = append(texts, strings.Repeat(fmt.Sprintf("row %d ", i), i%13))
	}
	dir := t.TempDir()
	for name, codec := range map[string]compress.Compression{"s": compress.Codecs.Snappy, "z": compress.Codecs.Zstd, "g": compress.Codecs.Gzip, "u": compress.Codecs.Uncompressed} {
		writeTextParquet(t, filepath.Join(dir, name+".parquet"), codec, texts)
	}
	checkRows(t, dir, texts)
}

// checkRows compares the rows of each file in dir, from several rows on, with 110 texts.
func checkRows(t *testing.T, dir string, texts []string) {
	t.Helper()
	files, _, err := listFiles(t.Context(), dir, "", TextConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, skip := range []int64{0, 1, 24, 25, 60, 109, 110} {
			got := []string{}
			names := ""
			err := f.read(context.Background(), "text", skip, func(d rawDocument) error {
				if len(got) == 0 {
					names = d.name
				}
				text, err := d.text("")
				got = append(got, string(text))
				return err
			})
			if err != nil {
				t.Fatal(f.name, err)
			}
			if diff := cmp.Diff(texts[skip:], got); diff != "" {
				t.Errorf("%s from %d: %s", f.name, skip, diff)
			}
			if want := fmt.Sprintf("%s:%d", f.name, skip+1); skip < 110 && names != want {
				t.Errorf("the first document is called %s, want %s", names, want)
			}
		}
	}
}

func TestBadParquetText(t *testing.T) {
	good := filepath.Join(t.TempDir(), "x.parquet")
	writeTextParquet(t, good, compress.Codecs.Zstd, []string{"one", "two", "three"})
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), raw...)
	for i := 4; i < 200; i += 7 {
		flipped[i] ^= 0x55
	}
	for _, test := range []struct {
		content, field, want string
	}{
		{string(raw), "body", `data.text: DIR/x.parquet: no column "body" among [id text]: set data.text.jsonl_field`},
		{string(raw), "id", `data.text: DIR/x.parquet: column "id" is not a string: set data.text.jsonl_field`},
		{string(raw[:100]), "text", "data.text: DIR/x.parquet: does not end as a Parquet file does: it is not a Parquet file, or was truncated"},
		{"", "text", "data.text: DIR/x.parquet: is too short for a Parquet file"},
		{string(flipped), "text", "data.text: DIR/x.parquet: row group 0, row 0: "},
	} {
		checkRefused(t, "x.parquet", test.content, test.field, test.want)
	}
	checkRefused(t, "x.parquet.gz", string(raw), "text", "data.text: DIR/x.parquet.gz: can't be read while it is compressed as a whole: decompress it")
}

// checkRefused compares the beginning of the error for a folder with one file, in which DIR stands
// for the folder.
func checkRefused(t *testing.T, name, content, field, want string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	c := testConfig(t, dir)
	c.Text.JSONLField = field
	_, err := Prepare(context.Background(), c, nil)
	if err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), dir, "DIR"), want) {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
}
