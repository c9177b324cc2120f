package data

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/parquet/compress"
)

func TestInspect(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(50)))
	c.ValidationFraction = 0.3
	m := mustPrepare(t, c)
	r, err := Inspect(c.Shards)
	if err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, c, Train)
	if r.Train.RowGroups != len(d.parts[0].index) || r.Train.Files != len(m.Train.Shards) || r.Train.LargestRowGroup > 64 || r.Train.LargestRowGroup < 32 {
		t.Errorf("report of the training split is %+v", r.Train)
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(c.Shards, "validation-*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if r.Validation.FileBytes != size || r.Validation.CompressionRatio != float64(m.Validation.Bytes)/float64(size) {
		t.Errorf("report of the validation split is %+v, its files have %d bytes", r.Validation, size)
	}
	if want, _ := m.UnigramBitsPerByte(); r.UnigramBitsPerByte == nil || *r.UnigramBitsPerByte != want {
		t.Errorf("unigram bits per byte are %v, want %v", r.UnigramBitsPerByte, want)
	}
}

func TestReportText(t *testing.T) {
	r, err := Inspect(filepath.Join("testdata", "shards"))
	if err != nil {
		t.Fatal(err)
	}
	r.Folder = "shards"
	var got strings.Builder
	if err := r.WriteText(&got); err != nil {
		t.Fatal(err)
	}
	const want = `folder      shards
schema      document: string, tokens: list<int32>, bytes: int64 (format 1)
tokenizer   bytes, 257 ids, end of text 256, sha256:929db798f82c4668f7272a58c2412484
text        text, include everything, exclude nothing
files read  5; left out: 1 empty documents, 0 links and special files

                            train  validation
documents                   1      3
tokens                      16     102
bytes of text               15     99
bytes per token             0.938  0.971
tokens per document, mean   16.0   34.0
tokens per document, most   16     89
shards                      1      1
row groups                  1      2
tokens per row group, most  16     64
bytes of files              757    1196
text / files                0.02   0.08

single-byte frequencies of train give validation 7.5981 bits per byte
`
	if got.String() != want {
		t.Errorf("report is\n%s\nwant\n%s", got.String(), want)
	}
}

// foreignFolder returns a folder with one training shard, written by another program.
func foreignFolder(t testing.TB, documents int64, fill func(*array.RecordBuilder)) Config {
	t.Helper()
	raw := foreignShard(t, shardMetadata(), shardFields(arrow.PrimitiveTypes.Int32), compress.Codecs.Zstd, fill)
	c := DefaultConfig()
	c.Shards, c.SeqLen = t.TempDir(), 2
	if err := os.WriteFile(filepath.Join(c.Shards, "part-0.parquet"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := openShard(strings.NewReader(string(raw)), int64(len(raw)), Describe(byteTokenizer{}), Train)
	if err != nil {
		t.Fatal(err)
	}
	g := s.rowGroups[0]
	m := Manifest{
		Format: formatVersion, Tokenizer: Describe(byteTokenizer{}),
		Train: SplitInfo{Documents: documents, Tokens: g.tokens, Bytes: g.tokens, LongestDocument: 1, Shards: []Shard{
			{File: "part-0.parquet", Size: int64(len(raw)), XXH3: checksum(raw), Rows: g.rows, Tokens: g.tokens, Bytes: g.tokens},
		}},
	}
	if err := os.WriteFile(filepath.Join(c.Shards, manifestName), mustJSON(m), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestForeignFolder(t *testing.T) {
	c := foreignFolder(t, 2, fillRows([]int32{'a', 256}, []int32{'b', 'c', 256}))
	if _, err := Prepare(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if err := verify(c.Shards); err != nil {
		t.Fatal(err)
	}
	got := make([]int32, 6)
	d := mustOpen(t, c, Train)
	if err := d.Batch(0, 2, got); err != nil {
		t.Fatal(err)
	}
	first, second := []int32{'a', 256, 'b'}, []int32{'b', 'c', 256}
	if !slices.Equal(got, slices.Concat(first, second)) && !slices.Equal(got, slices.Concat(second, first)) {
		t.Errorf("batch is %v, want the rows %v and %v", got, first, second)
	}
	r, err := Inspect(c.Shards)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "unknown: the shards were written by another program") || strings.Contains(text.String(), "bits per byte") {
		t.Error(text.String())
	}
}

func TestOtherTokenizer(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(5)))
	m := mustPrepare(t, c)
	m.Tokenizer.Name, m.Tokenizer.Fingerprint = "other", "sha256:00"
	if err := os.WriteFile(filepath.Join(c.Shards, manifestName), mustJSON(m), 0o644); err != nil {
		t.Fatal(err)
	}
	const want = "data.tokenizer: DIR was made with tokenizer other (sha256:00), the recipe names bytes (sha256:929db798f82c4668f7272a58c2412484): change data.tokenizer, or choose another folder for data.shards"
	_, err := Prepare(t.Context(), c, nil)
	checkError(t, err, c.Shards, want)
	_, err = Open(t.Context(), c, Train)
	checkError(t, err, c.Shards, want)
}
