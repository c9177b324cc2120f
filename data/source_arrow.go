package data

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v16/arrow"
	"github.com/apache/arrow/go/v16/arrow/array"
	"github.com/apache/arrow/go/v16/arrow/ipc"
	"github.com/apache/arrow/go/v16/arrow/memory"
)

// The two forms of Arrow's IPC format: a stream of messages, and a file, which has this at both ends.
// https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
const (
	arrowFile  = "ARROW1"
	arrowBegin = "\xff\xff\xff\xff"                 // of each message of a stream
	arrowEnd   = "\xff\xff\xff\xff\x00\x00\x00\x00" // of a stream
)

// arrowReader reads one record batch after another; io.EOF follows the last one.
type arrowReader interface {
	Schema() *arrow.Schema
	Read() (arrow.Record, error)
}

// readArrow emits the text of each row from row skip on: a column of strings or bytes, one record
// batch of which is in memory at a time. A null is an empty document.
func (f sourceFile) readArrow(ctx context.Context, field string, skip int64, emit func(rawDocument) error) error {
	in, err := openWatched(watching(ctx), f.path)
	if err != nil {
		return fmt.Errorf("data.text: %w", err)
	}
	defer in.Close()
	reader, column, err := openArrow(in, field)
	if err != nil {
		return f.failed(err)
	}
	for row := int64(0); ; {
		texts, err := nextTexts(reader, column)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("data.text: %s: the record batch after row %d: %w", f.path, row, err)
		}
		for i := range texts.Len() {
			row++
			if row <= skip {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			text, err := textOfRow(texts, i)
			if err != nil {
				return fmt.Errorf("data.text: %s: row %d: %w", f.path, row, err)
			}
			if err := emit(rawDocument{name: fmt.Sprintf("%s:%d", f.name, row), data: text}); err != nil {
				return err
			}
		}
	}
}

// openArrow reads the schema, and finds the column of that name.
func openArrow(in *watchedFile, field string) (reader arrowReader, column int, err error) {
	defer recoverDecoder(&err)
	isFile, err := checkArrow(in)
	if err != nil {
		return nil, 0, err
	}
	mem := ipc.WithAllocator(boundedAllocator{memory.NewGoAllocator()})
	if isFile {
		reader, err = ipc.NewFileReader(in, mem)
	} else {
		reader, err = ipc.NewReader(bufio.NewReaderSize(in, 1<<20), mem)
	}
	if err != nil {
		return nil, 0, err
	}
	var names []string
	for i, f := range reader.Schema().Fields() {
		if f.Name != field {
			names = append(names, f.Name)
			continue
		}
		switch f.Type.ID() {
		case arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY:
			return reader, i, nil
		}
		return nil, 0, fmt.Errorf("column %q is not a string: set data.text.jsonl_field", field)
	}
	return nil, 0, fmt.Errorf("no column %q among %v: set data.text.jsonl_field", field, names)
}

// checkArrow tells a file from a stream. Both must be complete: the reader of a stream takes the end
// of a truncated one for the end of its rows.
func checkArrow(in *watchedFile) (isFile bool, err error) {
	info, err := in.Stat()
	if err != nil {
		return false, err
	}
	var head, tail [len(arrowEnd)]byte
	if info.Size() < int64(len(head)+len(tail)) {
		return false, errors.New("is too short for an Arrow file")
	}
	if _, err := in.ReadAt(head[:], 0); err != nil {
		return false, err
	}
	if _, err := in.ReadAt(tail[:], info.Size()-int64(len(tail))); err != nil {
		return false, err
	}
	isFile = bytes.HasPrefix(head[:], []byte(arrowFile))
	end := arrowEnd
	switch {
	case isFile:
		end = arrowFile
	case !bytes.HasPrefix(head[:], []byte(arrowBegin)):
		return false, errors.New("does not begin as an Arrow file does")
	}
	if !bytes.HasSuffix(tail[:], []byte(end)) {
		return false, errors.New("does not end as an Arrow file does: it was truncated, or its writer was not closed")
	}
	return isFile, checkArrowSchema(in, info.Size(), isFile)
}

// nextTexts returns the column of the next record batch; io.EOF after the last one.
func nextTexts(reader arrowReader, column int) (texts arrow.Array, err error) {
	defer recoverDecoder(&err)
	record, err := reader.Read()
	if err != nil {
		return nil, err
	}
	return record.Column(column), nil
}

// textOfRow returns a copy of a row's text.
func textOfRow(texts arrow.Array, i int) (text []byte, err error) {
	defer recoverDecoder(&err)
	if texts.IsNull(i) {
		return nil, nil
	}
	switch column := texts.(type) {
	case *array.String:
		return []byte(column.Value(i)), nil
	case *array.LargeString:
		return []byte(column.Value(i)), nil
	case *array.Binary:
		return bytes.Clone(column.Value(i)), nil
	case *array.LargeBinary:
		return bytes.Clone(column.Value(i)), nil
	}
	return nil, errors.New("has a column of another type than the file says")
}
