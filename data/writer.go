package data

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/arrow/memory"
	"github.com/apache/arrow/go/v16/parquet"
	"github.com/apache/arrow/go/v16/parquet/compress"
	"github.com/apache/arrow/go/v16/parquet/pqarrow"
	"github.com/zeebo/xxh3"
)

// layout determines the sizes of what Prepare writes.
type layout struct {
	// RowGroupTokens limits a row, and the rows of a row group together, in tokens: the unit of
	// decoding.
	RowGroupTokens int `json:"row_group_tokens"`
	// ShardTokens is the number of training tokens at which the files of both splits end: at the
	// next end of a chunk.
	ShardTokens int64 `json:"shard_tokens"`
}

// defaultLayout gives row groups of 512 KiB and files of 256 MiB before compression with zstd.
var defaultLayout = layout{RowGroupTokens: 1 << 17, ShardTokens: 1 << 26}

// row is one row of a shard: a document with its end-of-text token, or a piece of a long one.
type row struct {
	document string
	tokens   []int32
	bytes    int64
}

// rows splits a document's tokens into rows.
func (l layout) rows(tok Tokenizer, name string, tokens []int32) []row {
	var out []row
	for len(tokens) > 0 {
		n := min(len(tokens), l.RowGroupTokens)
		out = append(out, row{name, tokens[:n:n], TextBytes(tok, tokens[:n])})
		tokens = tokens[n:]
	}
	return out
}

// splitWriter writes the shards of one split into dir.
type splitWriter struct {
	dir    string
	split  Split
	layout layout
	schema *arrow.Schema
	info   SplitInfo
	watch  Watch

	// The open shard; file is nil between shards.
	file  *watchedFile
	out   *countingWriter
	arrow *pqarrow.FileWriter
	shard Shard

	// The open row group.
	builder *array.RecordBuilder
	tokens  int
}

// newSplitWriter continues after the shards of info.
func newSplitWriter(w Watch, dir string, split Split, tok Tokenizer, source string, l layout, info SplitInfo) *splitWriter {
	metadata := arrow.NewMetadata(
		[]string{keyFormat, keyTokenizer, keyFingerprint, keyVocabSize, keyEOS, keySplit, keySource},
		[]string{strconv.Itoa(formatVersion), tok.Name(), tok.Fingerprint(), strconv.Itoa(tok.VocabSize()),
			strconv.Itoa(int(tok.EOS())), string(split), source},
	)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: columnDocument, Type: arrow.BinaryTypes.String},
		{Name: columnTokens, Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)},
		{Name: columnBytes, Type: arrow.PrimitiveTypes.Int64},
	}, &metadata)
	return &splitWriter{
		dir:     dir,
		split:   split,
		layout:  l,
		schema:  schema,
		info:    info,
		watch:   w,
		builder: array.NewRecordBuilder(memory.NewGoAllocator(), schema),
	}
}

// add writes one document.
func (w *splitWriter) add(rows []row) error {
	var tokens int64
	for _, r := range rows {
		if w.tokens > 0 && w.tokens+len(r.tokens) > w.layout.RowGroupTokens {
			if err := w.endRowGroup(); err != nil {
				return err
			}
		}
		if w.file == nil {
			if err := w.beginShard(); err != nil {
				return err
			}
		}
		w.builder.Field(0).(*array.StringBuilder).Append(r.document)
		list := w.builder.Field(1).(*array.ListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.Int32Builder).AppendValues(r.tokens, nil)
		w.builder.Field(2).(*array.Int64Builder).Append(r.bytes)

		w.tokens += len(r.tokens)
		tokens += int64(len(r.tokens))
		w.shard.Rows++
		w.shard.Tokens += int64(len(r.tokens))
		w.shard.Bytes += r.bytes
	}
	w.info.Documents++
	w.info.LongestDocument = max(w.info.LongestDocument, tokens)
	return nil
}

func (w *splitWriter) beginShard() error {
	name := fmt.Sprintf("%s-%05d.parquet", w.split, len(w.info.Shards))
	file, err := createWatched(w.watch, filepath.Join(w.dir, name))
	if err != nil {
		return err
	}
	w.file, w.shard = file, Shard{File: name}
	w.out = &countingWriter{file: file, hash: xxh3.New()}
	// Plain pages of 4-byte ids compress better than bit-packed ones: zstd matches whole ids.
	// Statistics of a column of ids are useless.
	properties := parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithDictionaryDefault(false),
		parquet.WithStats(false),
		parquet.WithCreatedBy("sambatrain"),
	)
	w.arrow, err = pqarrow.NewFileWriter(w.schema, w.out, properties, pqarrow.DefaultWriterProps())
	return w.out.failure(err)
}

func (w *splitWriter) endRowGroup() error {
	if w.tokens == 0 {
		return nil
	}
	rec := w.builder.NewRecord()
	defer rec.Release()
	w.tokens = 0
	return w.out.failure(w.arrow.Write(rec))
}

// endShard closes the file, if one is open, and makes sure that its bytes are on disk.
func (w *splitWriter) endShard() error {
	if w.file == nil {
		return nil
	}
	if err := w.endRowGroup(); err != nil {
		return err
	}
	if err := w.out.failure(w.arrow.Close()); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if err := w.file.Close(); err != nil {
		return err
	}
	w.file = nil
	w.shard.Size = w.out.size
	w.shard.XXH3 = fmt.Sprintf("%016x", w.out.hash.Sum64())
	w.info.Shards = append(w.info.Shards, w.shard)
	w.info.Tokens += w.shard.Tokens
	w.info.Bytes += w.shard.Bytes
	w.shard = Shard{}
	return nil
}

// finish ends the last shard and returns the counts.
func (w *splitWriter) finish() (SplitInfo, error) {
	err := w.endShard()
	return w.info, err
}

// abandon gives up an unfinished shard, after an error elsewhere.
func (w *splitWriter) abandon() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// countingWriter writes to a file, and hashes and counts what it writes. It hides two things from
// the Parquet writer: the file's Close, since it would close the file before it is synced, and
// errors, since it panics on some of them; failure returns them.
type countingWriter struct {
	file io.Writer
	hash *xxh3.Hasher
	size int64
	err  error
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		var n int
		n, w.err = w.file.Write(p)
		w.hash.Write(p[:n])
		w.size += int64(n)
	}
	return len(p), nil
}

// failure returns the first write error, or err of the Parquet writer.
func (w *countingWriter) failure(err error) error {
	if w.err != nil {
		return w.err
	}
	return err
}
