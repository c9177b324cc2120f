package data

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/arrow/memory"
	"github.com/apache/arrow/go/v16/parquet"
	"github.com/apache/arrow/go/v16/parquet/file"
	"github.com/apache/arrow/go/v16/parquet/pqarrow"
	"github.com/zeebo/xxh3"
)

// Columns of a shard.
const (
	columnDocument = "document" // string: where the text came from
	columnTokens   = "tokens"   // list<int32>: token ids
	columnBytes    = "bytes"    // int64: bytes of text that the tokens stand for
)

// Keys of a shard's metadata.
const (
	keyFormat      = "sambatrain.format"
	keyTokenizer   = "sambatrain.tokenizer"
	keyFingerprint = "sambatrain.tokenizer_fingerprint"
	keyVocabSize   = "sambatrain.vocab_size"
	keyEOS         = "sambatrain.eos_id"
	keySplit       = "sambatrain.split"
	keySource      = "sambatrain.source_fingerprint" // not checked: where the shard came from
)

// Bounds that keep the memory for one row group small, whatever a file claims.
const (
	maxRowGroupTokens = 1 << 24
	maxFooter         = 16 << 20
	maxAllocation     = 1 << 28
)

// remedy is the end of errors about a damaged folder.
const remedy = "restore the file, or delete the folder and run `sambatrain data prepare` again"

// rowGroup is what the footer says about one row group.
type rowGroup struct {
	rows, tokens int64
}

// shardReader reads one shard. Arrow's Parquet reader panics on some damaged files; every call into
// it is made on the caller's goroutine under recoverDecoder, so that damage is an error.
type shardReader struct {
	parquet   *file.Reader
	arrow     *pqarrow.FileReader
	fields    map[string]int // column name -> field
	rowGroups []rowGroup
	vocabSize int
}

// openShard reads the footer of a shard of size bytes and checks it against the requirements of
// this tokenizer and split.
func openShard(r io.ReaderAt, size int64, want TokenizerInfo, split Split) (s *shardReader, err error) {
	defer recoverDecoder(&err)
	if err := checkFooter(r, size); err != nil {
		return nil, err
	}
	mem := boundedAllocator{memory.NewGoAllocator()}
	pq, err := file.NewParquetReader(io.NewSectionReader(r, 0, size), file.WithReadProps(parquet.NewReaderProperties(mem)))
	if err != nil {
		return nil, err
	}
	if err := checkMetadata(pq, want, split); err != nil {
		return nil, err
	}
	if err := checkSchema(pq); err != nil {
		return nil, err
	}
	fr, err := pqarrow.NewFileReader(pq, pqarrow.ArrowReadProperties{}, mem)
	if err != nil {
		return nil, err
	}
	s = &shardReader{parquet: pq, arrow: fr, fields: map[string]int{}, vocabSize: want.VocabSize}
	for i, field := range fr.Manifest.Fields {
		s.fields[field.Field.Name] = i
	}
	tokens := slices.IndexFunc(columns(pq), func(name string) bool { return name == columnTokens })
	for i := range pq.NumRowGroups() {
		group, err := checkRowGroup(pq, i, tokens, size)
		if err != nil {
			return nil, fmt.Errorf("row group %d: %w", i, err)
		}
		s.rowGroups = append(s.rowGroups, group)
	}
	return s, nil
}

// checkFooter limits the size of the footer before the library allocates memory for it.
func checkFooter(r io.ReaderAt, size int64) error {
	var tail [8]byte
	if size < int64(len(tail)) {
		return errors.New("is too short for a Parquet file")
	}
	if _, err := r.ReadAt(tail[:], size-int64(len(tail))); err != nil && err != io.EOF {
		return err
	}
	if string(tail[4:]) != "PAR1" {
		return errors.New("does not end as a Parquet file does: it is not a Parquet file, or was truncated")
	}
	if n := binary.LittleEndian.Uint32(tail[:4]); n > maxFooter {
		return fmt.Errorf("has a footer of %d bytes, the limit is %d", n, maxFooter)
	}
	return nil
}

func checkMetadata(pq *file.Reader, want TokenizerInfo, split Split) error {
	kv := pq.MetaData().KeyValueMetadata()
	for _, check := range []struct{ key, want string }{
		{keyFormat, strconv.Itoa(formatVersion)},
		{keyTokenizer, want.Name},
		{keyFingerprint, want.Fingerprint},
		{keyVocabSize, strconv.Itoa(want.VocabSize)},
		{keyEOS, strconv.Itoa(int(want.EOS))},
		{keySplit, string(split)},
	} {
		got := kv.FindValue(check.key)
		if got == nil {
			return fmt.Errorf("has no metadata %s, want %q", check.key, check.want)
		}
		if *got != check.want {
			return fmt.Errorf("metadata %s is %q, want %q", check.key, *got, check.want)
		}
	}
	return nil
}

// columns returns the name of the field that each leaf column belongs to.
func columns(pq *file.Reader) []string {
	schema := pq.MetaData().Schema
	names := make([]string, schema.NumColumns())
	for i := range names {
		names[i] = schema.Column(i).ColumnPath()[0]
	}
	return names
}

// checkSchema compares names and physical types. Fields may be nullable, since many writers can't
// choose; actual nulls are rejected when they are read.
func checkSchema(pq *file.Reader) error {
	schema := pq.MetaData().Schema
	want := map[string]struct {
		physical parquet.Type
		repeated int16
	}{
		columnDocument: {parquet.Types.ByteArray, 0},
		columnTokens:   {parquet.Types.Int32, 1},
		columnBytes:    {parquet.Types.Int64, 0},
	}
	names := columns(pq)
	ok := len(names) == len(want)
	for i, name := range names {
		column := schema.Column(i)
		w, known := want[name]
		ok = ok && known && column.PhysicalType() == w.physical && column.MaxRepetitionLevel() == w.repeated
		delete(want, name)
	}
	if !ok {
		return fmt.Errorf("has columns %v, want document: string, tokens: list<int32>, bytes: int64", describeColumns(pq))
	}
	return nil
}

func describeColumns(pq *file.Reader) []string {
	schema := pq.MetaData().Schema
	out := make([]string, schema.NumColumns())
	for i := range out {
		out[i] = fmt.Sprintf("%s: %v", schema.Column(i).Path(), schema.Column(i).PhysicalType())
	}
	return out
}

// checkRowGroup reads the counts of a row group, and makes sure that its columns lie within the
// file.
func checkRowGroup(pq *file.Reader, i, tokensColumn int, size int64) (rowGroup, error) {
	meta := pq.RowGroup(i).MetaData()
	for c := range meta.NumColumns() {
		chunk, err := meta.ColumnChunk(c)
		if err != nil {
			return rowGroup{}, err
		}
		start := chunk.DataPageOffset()
		if chunk.HasDictionaryPage() && chunk.DictionaryPageOffset() > 0 {
			start = min(start, chunk.DictionaryPageOffset())
		}
		if n := chunk.TotalCompressedSize(); start < 0 || n < 0 || start > size || n > size-start {
			return rowGroup{}, fmt.Errorf("column %d lies outside the file", c)
		}
	}
	chunk, err := meta.ColumnChunk(tokensColumn)
	if err != nil {
		return rowGroup{}, err
	}
	// A list column has a value for every element and for every empty list; as empty lists are
	// rejected, this is the number of tokens.
	group := rowGroup{rows: meta.NumRows(), tokens: chunk.NumValues()}
	if group.rows < 1 || group.tokens < group.rows {
		return rowGroup{}, fmt.Errorf("%d rows with %d tokens are invalid", group.rows, group.tokens)
	}
	if group.tokens > maxRowGroupTokens {
		return rowGroup{}, fmt.Errorf("holds %d tokens, the limit is %d: write smaller row groups", group.tokens, maxRowGroupTokens)
	}
	return group, nil
}

// record decodes the named columns of one row group.
func (s *shardReader) record(ctx context.Context, group int, names ...string) (rec arrow.Record, err error) {
	defer recoverDecoder(&err)
	fields := make([]arrow.Field, len(names))
	arrays := make([]arrow.Array, len(names))
	for i, name := range names {
		// Unlike the calls for several columns, this one starts no goroutine, whose panic could not
		// be caught.
		column, err := s.arrow.RowGroup(group).Column(s.fields[name]).Read(ctx)
		if err != nil {
			return nil, err
		}
		if len(column.Chunks()) != 1 || int64(column.Len()) != s.rowGroups[group].rows {
			return nil, fmt.Errorf("column %s has %d rows, the footer says %d", name, column.Len(), s.rowGroups[group].rows)
		}
		if column.NullN() > 0 {
			return nil, fmt.Errorf("column %s has a null", name)
		}
		arrays[i] = column.Chunk(0)
		fields[i] = arrow.Field{Name: name, Type: column.DataType()}
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, s.rowGroups[group].rows), nil
}

// tokens returns the ids of a row group, those of all its rows in order, after checking that each
// is in the vocabulary.
func (s *shardReader) tokens(ctx context.Context, group int) ([]int32, error) {
	rec, err := s.record(ctx, group, columnTokens)
	if err != nil {
		return nil, err
	}
	_, ids, err := s.tokenList(rec.Column(0), group)
	return ids, err
}

// tokenList splits the tokens column: row r is ids[offsets[r]:offsets[r+1]].
func (s *shardReader) tokenList(column arrow.Array, group int) (offsets, ids []int32, err error) {
	list, ok := column.(*array.List)
	if !ok {
		return nil, nil, fmt.Errorf("column %s is %v, want list<int32>", columnTokens, column.DataType())
	}
	values, ok := list.ListValues().(*array.Int32)
	if !ok {
		return nil, nil, fmt.Errorf("column %s is %v, want list<int32>", columnTokens, column.DataType())
	}
	if values.NullN() > 0 {
		return nil, nil, fmt.Errorf("column %s has a null", columnTokens)
	}
	offsets, ids = list.Offsets(), values.Int32Values()
	if int64(len(ids)) != s.rowGroups[group].tokens {
		return nil, nil, fmt.Errorf("column %s has %d tokens, the footer says %d values: a list may be empty", columnTokens, len(ids), s.rowGroups[group].tokens)
	}
	if bad, found := firstOutside(ids, s.vocabSize); found {
		return nil, nil, fmt.Errorf("token id %d is outside the vocabulary of %d", bad, s.vocabSize)
	}
	return offsets, ids, nil
}

// firstOutside returns the first id that is not in [0, vocabSize).
func firstOutside(ids []int32, vocabSize int) (int32, bool) {
	for _, id := range ids {
		// As unsigned, a negative id is large.
		if uint32(id) >= uint32(vocabSize) {
			return id, true
		}
	}
	return 0, false
}

// boundedAllocator rejects sizes that only a damaged file would request. Arrow has no error for
// this, so it panics, below recoverDecoder.
type boundedAllocator struct{ memory.Allocator }

func (a boundedAllocator) Allocate(size int) []byte {
	checkAllocation(size)
	return a.Allocator.Allocate(size)
}

func (a boundedAllocator) Reallocate(size int, b []byte) []byte {
	checkAllocation(size)
	return a.Allocator.Reallocate(size, b)
}

func checkAllocation(size int) {
	if size < 0 || size > maxAllocation {
		panic(fmt.Errorf("a page asks for %d bytes, the limit is %d", size, maxAllocation))
	}
}

// recoverDecoder turns a panic of the Parquet or Arrow reader into an error.
func recoverDecoder(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("cannot be decoded: %v", p)
	}
}

// openFile opens a shard's file and reads its footer. The caller closes the file.
func (s Shard) openFile(dir string, want TokenizerInfo, split Split) (*os.File, *shardReader, error) {
	path := filepath.Join(dir, s.File)
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, openError(err)
	}
	fail := func(err error) (*os.File, *shardReader, error) {
		f.Close()
		return nil, nil, shardError(path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if info.Size() != s.Size {
		return fail(fmt.Errorf("has %d bytes, the manifest says %d", info.Size(), s.Size))
	}
	reader, err := openShard(f, info.Size(), want, split)
	if err != nil {
		return fail(err)
	}
	var rows, tokens int64
	for _, g := range reader.rowGroups {
		rows += g.rows
		tokens += g.tokens
	}
	if rows != s.Rows || tokens != s.Tokens {
		return fail(fmt.Errorf("has %d rows with %d tokens, the manifest says %d with %d", rows, tokens, s.Rows, s.Tokens))
	}
	return f, reader, nil
}

// verify compares the file's checksum with the manifest's.
func (s Shard) verify(ctx context.Context, dir string) error {
	path := filepath.Join(dir, s.File)
	f, err := openWatched(watching(ctx), path)
	if err != nil {
		return openError(err)
	}
	defer f.Close()
	hash := xxh3.New()
	n, err := io.Copy(hash, contextReader{ctx, f})
	if err != nil {
		return shardError(path, err)
	}
	if n != s.Size {
		return shardError(path, fmt.Errorf("has %d bytes, the manifest says %d", n, s.Size))
	}
	if sum := fmt.Sprintf("%016x", hash.Sum64()); sum != s.XXH3 {
		return shardError(path, fmt.Errorf("has checksum %s, the manifest says %s: its bytes were changed", sum, s.XXH3))
	}
	return nil
}

// openError says why a shard can't be opened, and what to do about it. The shards of a group of spans
// are open together, which may be more files than a process is allowed.
func openError(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("data.shards: %w: make the file readable for this user", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("data.shards: %w: raise how many files a process may have open, as in `ulimit -n 65536`, and run the same command again", err)
	}
	return fmt.Errorf("data.shards: %w: %s", err, remedy)
}

// contextReader ends a long read when its context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func shardError(path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("data.shards: %s: %w: %s", path, err, remedy)
}
