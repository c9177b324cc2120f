package data

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v16/arrow/memory"
	"github.com/apache/arrow/go/v16/parquet"
	"github.com/apache/arrow/go/v16/parquet/file"
)

// readParquet emits the text of each row from row skip on: a column of strings or bytes, one page
// of which is in memory at a time. A null is an empty document.
func (f sourceFile) readParquet(ctx context.Context, field string, skip int64, emit func(rawDocument) error) error {
	in, err := openWatched(watching(ctx), f.path)
	if err != nil {
		return fmt.Errorf("data.text: %w", err)
	}
	defer in.Close()
	reader, column, err := openTextColumn(in, field)
	if err != nil {
		return f.failed(err)
	}
	row := int64(0)
	for group := range reader.NumRowGroups() {
		rows := reader.MetaData().RowGroups[group].GetNumRows()
		if row+rows <= skip {
			row += rows
			continue
		}
		next, err := textOfGroup(reader, group, column)
		for range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			var text []byte
			if err == nil {
				text, err = next()
			}
			if err != nil {
				return fmt.Errorf("data.text: %s: row group %d, row %d: %w", f.path, group, row, err)
			}
			row++
			if row <= skip {
				continue
			}
			if err := emit(rawDocument{name: fmt.Sprintf("%s:%d", f.name, row), data: text}); err != nil {
				return err
			}
		}
	}
	return nil
}

func openTextColumn(in *watchedFile, field string) (reader *file.Reader, column int, err error) {
	defer recoverDecoder(&err)
	info, err := in.Stat()
	if err != nil {
		return nil, 0, err
	}
	if err := checkFooter(in, info.Size()); err != nil {
		return nil, 0, err
	}
	properties := parquet.NewReaderProperties(boundedAllocator{memory.NewGoAllocator()})
	properties.BufferedStreamEnabled = true
	if reader, err = file.NewParquetReader(in, file.WithReadProps(properties)); err != nil {
		return nil, 0, err
	}
	schema := reader.MetaData().Schema
	for i := range schema.NumColumns() {
		c := schema.Column(i)
		if c.Path() != field {
			continue
		}
		if c.PhysicalType() != parquet.Types.ByteArray || c.MaxRepetitionLevel() != 0 {
			return nil, 0, fmt.Errorf("column %q is not a string: set data.text.jsonl_field", field)
		}
		return reader, i, nil
	}
	return nil, 0, fmt.Errorf("no column %q among %v: set data.text.jsonl_field", field, columns(reader))
}

// textOfGroup returns a function that returns the next row's text each time.
func textOfGroup(reader *file.Reader, group, column int) (next func() ([]byte, error), err error) {
	defer recoverDecoder(&err)
	chunk, err := reader.RowGroup(group).Column(column)
	if err != nil {
		return nil, err
	}
	texts, ok := chunk.(*file.ByteArrayColumnChunkReader)
	if !ok {
		return nil, errors.New("has a column of another type than the file says")
	}
	level := reader.MetaData().Schema.Column(column).MaxDefinitionLevel()
	// One value at a time: a batch may extend beyond the end of a page, and the next page reuses
	// the memory of the last.
	var value [1]parquet.ByteArray
	var defined [1]int16
	return func() (text []byte, err error) {
		defer recoverDecoder(&err)
		n, values, err := texts.ReadBatch(1, value[:], defined[:], nil)
		switch {
		case err != nil:
			return nil, err
		case n != 1:
			return nil, errors.New("is missing")
		case values == 0 || level > 0 && defined[0] < level:
			return nil, nil
		}
		return append([]byte(nil), value[0]...), nil
	}, nil
}
