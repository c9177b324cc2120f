package data

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/arrow/memory"
	"github.com/apache/arrow/go/v16/parquet"
	"github.com/apache/arrow/go/v16/parquet/compress"
	"github.com/apache/arrow/go/v16/parquet/pqarrow"
)

// shardMetadata is the metadata of a training shard of bytes.
func shardMetadata() map[string]string {
	info := Describe(byteTokenizer{})
	return map[string]string{
		keyFormat: "1", keyTokenizer: info.Name, keyFingerprint: info.Fingerprint,
		keyVocabSize: "257", keyEOS: "256", keySplit: "train",
	}
}

// foreignShard writes a Parquet file of one row group as another program would, with nullable
// columns.
func foreignShard(t testing.TB, metadata map[string]string, fields []arrow.Field, codec compress.Compression, fill func(*array.RecordBuilder)) []byte {
	t.Helper()
	kv := arrow.MetadataFrom(metadata)
	schema := arrow.NewSchema(fields, &kv)
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, parquet.NewWriterProperties(parquet.WithCompression(codec)), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	fill(b)
	if err := w.Write(b.NewRecord()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shardFields are a shard's columns, in another order than Prepare's, and nullable.
func shardFields(token arrow.DataType) []arrow.Field {
	return []arrow.Field{
		{Name: columnBytes, Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: columnTokens, Type: arrow.ListOf(token), Nullable: true},
		{Name: columnDocument, Type: arrow.BinaryTypes.String, Nullable: true},
	}
}

// fillRows adds a row for each list of ids; nil is a null.
func fillRows(lists ...[]int32) func(*array.RecordBuilder) {
	return func(b *array.RecordBuilder) {
		for i, ids := range lists {
			b.Field(0).(*array.Int64Builder).Append(int64(len(ids)))
			list := b.Field(1).(*array.ListBuilder)
			list.Append(ids != nil)
			for _, id := range ids {
				list.ValueBuilder().(*array.Int32Builder).Append(id)
			}
			b.Field(2).(*array.StringBuilder).Append(fmt.Sprint("document ", i))
		}
	}
}

// readShard decodes all tokens of a shard of bytes.
func readShard(raw []byte) ([]int32, error) {
	s, err := openShard(bytes.NewReader(raw), int64(len(raw)), Describe(byteTokenizer{}), Train)
	if err != nil {
		return nil, err
	}
	var out []int32
	for group := range s.rowGroups {
		ids, err := s.tokens(context.Background(), group)
		if err != nil {
			return nil, err
		}
		out = append(out, ids...)
	}
	return out, nil
}

func TestForeignShard(t *testing.T) {
	for _, codec := range []compress.Compression{compress.Codecs.Zstd, compress.Codecs.Snappy, compress.Codecs.Uncompressed} {
		raw := foreignShard(t, shardMetadata(), shardFields(arrow.PrimitiveTypes.Int32), codec, fillRows([]int32{'a', 'b', 256}, []int32{'c', 256}))
		got, err := readShard(raw)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int32{'a', 'b', 256, 'c', 256}; !slices.Equal(got, want) {
			t.Errorf("%v: tokens are %v, want %v", codec, got, want)
		}
	}
}

func TestForeignShardErrors(t *testing.T) {
	int32s := shardFields(arrow.PrimitiveTypes.Int32)
	rows := fillRows([]int32{'a', 256})
	with := func(key, value string) map[string]string {
		m := shardMetadata()
		if m[key] = value; value == "" {
			delete(m, key)
		}
		return m
	}
	for _, test := range []struct {
		name     string
		metadata map[string]string
		fields   []arrow.Field
		fill     func(*array.RecordBuilder)
		want     string
	}{
		{"version", with(keyFormat, "2"), int32s, rows, `metadata sambatrain.format is "2", want "1"`},
		{"no metadata", with(keyFormat, ""), int32s, rows, `has no metadata sambatrain.format, want "1"`},
		{"tokenizer", with(keyTokenizer, "gpt2"), int32s, rows, `metadata sambatrain.tokenizer is "gpt2", want "bytes"`},
		{"fingerprint", with(keyFingerprint, "sha256:00"), int32s, rows, `metadata sambatrain.tokenizer_fingerprint is "sha256:00", want "sha256:929db798f82c4668f7272a58c2412484"`},
		{"vocabulary", with(keyVocabSize, "256"), int32s, rows, `metadata sambatrain.vocab_size is "256", want "257"`},
		{"end of text", with(keyEOS, "0"), int32s, rows, `metadata sambatrain.eos_id is "0", want "256"`},
		{"split", with(keySplit, "validation"), int32s, rows, `metadata sambatrain.split is "validation", want "train"`},
		{"token type", shardMetadata(), shardFields(arrow.PrimitiveTypes.Int64), func(b *array.RecordBuilder) {
			b.Field(0).AppendNull()
			b.Field(1).AppendNull()
			b.Field(2).AppendNull()
		}, "has columns [bytes: INT64 tokens.list.element: INT64 document: BYTE_ARRAY], want document: string, tokens: list<int32>, bytes: int64"},
		{"no list", shardMetadata(), []arrow.Field{{Name: columnTokens, Type: arrow.PrimitiveTypes.Int32}}, func(b *array.RecordBuilder) {
			b.Field(0).(*array.Int32Builder).Append(1)
		}, "has columns [tokens: INT32], want document: string, tokens: list<int32>, bytes: int64"},
		{"null list", shardMetadata(), int32s, fillRows([]int32{'a', 256}, nil), "column tokens has a null"},
		{"empty list", shardMetadata(), int32s, fillRows([]int32{'a', 256}, []int32{}), "column tokens has 2 tokens, the footer says 3 values: a list may be empty"},
		{"null token", shardMetadata(), int32s, func(b *array.RecordBuilder) {
			fillRows([]int32{'a'})(b)
			b.Field(1).(*array.ListBuilder).ValueBuilder().AppendNull()
		}, "column tokens has a null"},
		{"unsigned tokens", shardMetadata(), shardFields(arrow.PrimitiveTypes.Uint32), func(b *array.RecordBuilder) {
			b.Field(0).(*array.Int64Builder).Append(1)
			b.Field(1).(*array.ListBuilder).Append(true)
			b.Field(1).(*array.ListBuilder).ValueBuilder().(*array.Uint32Builder).Append(1)
			b.Field(2).(*array.StringBuilder).Append("x")
		}, "column tokens is list<list: uint32, nullable>, want list<int32>"},
		{"large id", shardMetadata(), int32s, fillRows([]int32{'a', 257}), "token id 257 is outside the vocabulary of 257"},
		{"negative id", shardMetadata(), int32s, fillRows([]int32{-1, 256}), "token id -1 is outside the vocabulary of 257"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readShard(foreignShard(t, test.metadata, test.fields, compress.Codecs.Zstd, test.fill))
			checkError(t, err, "", test.want)
		})
	}

	for _, test := range []struct{ name, raw, want string }{
		{"empty", "", "is too short for a Parquet file"},
		{"text", "no Parquet file at all", "does not end as a Parquet file does: it is not a Parquet file, or was truncated"},
		{"large footer", "PAR1\xff\xff\xff\xffPAR1", "has a footer of 4294967295 bytes, the limit is 16777216"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readShard([]byte(test.raw))
			checkError(t, err, "", test.want)
		})
	}
}

// TestOpenError: the error for a file that exists does not suggest restoring it.
func TestOpenError(t *testing.T) {
	for _, test := range []struct {
		errno syscall.Errno
		want  string
	}{
		{syscall.EMFILE, "data.shards: open a.parquet: too many open files: raise how many files a process may have open, as in `ulimit -n 65536`, and run the same command again"},
		{syscall.ENOENT, "data.shards: open a.parquet: no such file or directory: " + remedy},
		{syscall.EACCES, "data.shards: open a.parquet: permission denied: make the file readable for this user"},
	} {
		checkError(t, openError(&fs.PathError{Op: "open", Path: "a.parquet", Err: test.errno}), "", test.want)
	}
}

// TestDamageIsNamed damages one shard of a good folder.
func TestDamageIsNamed(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(raw []byte) []byte // nil removes the file
		skip   bool                    // SkipVerify
		want   string
	}{
		{"missing", nil, false, "data.shards: open DIR/train-00001.parquet: no such file or directory: " + remedy},
		{"missing, not verified", nil, true, "data.shards: open DIR/train-00001.parquet: no such file or directory: " + remedy},
		{"truncated", func(raw []byte) []byte { return raw[:len(raw)-100] }, false, "data.shards: DIR/train-00001.parquet: has 3001 bytes, the manifest says 3101: " + remedy},
		{"truncated, not verified", func(raw []byte) []byte { return raw[:len(raw)-100] }, true, "data.shards: DIR/train-00001.parquet: has 3001 bytes, the manifest says 3101: " + remedy},
		{"flipped", func(raw []byte) []byte { raw[100] ^= 1; return raw }, false, "data.shards: DIR/train-00001.parquet: has checksum SUM, the manifest says SUM: its bytes were changed: " + remedy},
		{"flipped footer, not verified", func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }, true, "data.shards: DIR/train-00001.parquet: does not end as a Parquet file does: it is not a Parquet file, or was truncated: " + remedy},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(t, writeFiles(t, corpus(60)))
			c.SkipVerify = test.skip
			m := mustPrepare(t, c)
			path := filepath.Join(c.Shards, "train-00001.parquet")
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			sum := checksum(raw)
			if test.damage == nil {
				err = os.Remove(path)
			} else {
				raw = test.damage(raw)
				err = os.WriteFile(path, raw, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(context.Background(), c, Train)
			want := test.want
			want = strings.Replace(want, "3101", fmt.Sprint(m.Train.Shards[1].Size), 1)
			want = strings.Replace(want, "3001", fmt.Sprint(m.Train.Shards[1].Size-100), 1)
			want = strings.Replace(want, "SUM", checksum(raw), 1)
			want = strings.Replace(want, "SUM", sum, 1)
			checkError(t, err, c.Shards, want)
			if err := verify(c.Shards); err == nil {
				t.Error("Verify sees nothing")
			}
		})
	}
}

// TestFlippedBytesAreFound flips a bit of every byte of a shard in turn and reads it without its
// checksum. The result must be an error or the correct tokens.
func TestFlippedBytesAreFound(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(4)))
	m := mustPrepare(t, c)
	shard := m.Train.Shards[0]
	raw, err := os.ReadFile(filepath.Join(c.Shards, shard.File))
	if err != nil {
		t.Fatal(err)
	}
	want, err := readShard(raw)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for i := range raw {
		flip := byte(1) << (i % 8)
		raw[i] ^= flip
		got, err := readShard(raw)
		raw[i] ^= flip
		if err != nil {
			failed++
		} else if int64(len(got)) == shard.Tokens && !slices.Equal(got, want) {
			t.Errorf("bit %#x of byte %d changes tokens unseen", flip, i)
		}
	}
	if failed < len(raw)/4 {
		t.Errorf("only %d of %d flips were errors", failed, len(raw))
	}
}

func TestRowGroupChangedInUse(t *testing.T) {
	d := shuffledDataset(t, 1)
	d.parts[0].index[1].token++
	err := d.Rows(0, 1, make([]int32, 17))
	for sample := int64(0); err == nil && sample < d.Blocks(); sample++ {
		err = d.Rows(sample, 1, make([]int32, 17))
	}
	if err == nil || !strings.Contains(err.Error(), ": has other tokens than when the run began: ") {
		t.Errorf("error is %v", err)
	}
}

// FuzzOpenShard reads any bytes as a shard: an error is fine, a panic is not.
func FuzzOpenShard(f *testing.F) {
	f.Add([]byte("PAR1"))
	f.Add(foreignShard(f, shardMetadata(), shardFields(arrow.PrimitiveTypes.Int32), compress.Codecs.Zstd, fillRows([]int32{'a', 'b', 256}, []int32{'c', 256})))
	f.Add(foreignShard(f, shardMetadata(), shardFields(arrow.PrimitiveTypes.Int32), compress.Codecs.Uncompressed, fillRows([]int32{'a', 'b', 256})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := openShard(bytes.NewReader(raw), int64(len(raw)), Describe(byteTokenizer{}), Train)
		if err != nil {
			return
		}
		for group := range s.rowGroups {
			ids, err := s.tokens(context.Background(), group)
			if err == nil && int64(len(ids)) != s.rowGroups[group].tokens {
				t.Errorf("row group %d has %d tokens, its footer says %d", group, len(ids), s.rowGroups[group].tokens)
			}
			s.record(context.Background(), group, columnDocument, columnBytes)
		}
	})
}

// TestFormatStays reads shards of format 1 that are kept in testdata: a change that can't read them
// needs a new format.
func TestFormatStays(t *testing.T) {
	c := DefaultConfig()
	c.Shards, c.SeqLen = filepath.Join("testdata", "shards"), 8
	if err := verify(c.Shards); err != nil {
		t.Fatal(err)
	}
	for split, want := range map[Split][]string{
		Train: {"first document\n"},
		Validation: {
			"a longer document, which is cut into two rows: 0123456789012345678901234567890123456789\n",
			"a line", "last\n",
		},
	} {
		if got := documents(t, mustOpen(t, c, split)); !slices.Equal(got, want) {
			t.Errorf("%s: documents are %q, want %q", split, got, want)
		}
	}
}
