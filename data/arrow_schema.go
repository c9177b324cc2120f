package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	flatbuffers "github.com/google/flatbuffers/go"
)

// Slots of the tables in Arrow's Schema.fbs, Message.fbs and File.fbs.
const (
	slotMessageHeader = 8
	slotFooterSchema  = 6
	slotFields        = 6 // of a schema
	slotSchemaMeta    = 8
	slotChildren      = 14 // of a field
	slotFieldMeta     = 16
)

// maxFieldDepth limits how deep the columns of an Arrow file are nested.
const maxFieldDepth = 64

// checkArrowSchema checks the lengths and the nesting in the schema of a file or stream. Arrow's
// reader trusts them, so that a damaged schema would make it exhaust memory or the stack, which ends
// the program.
func checkArrowSchema(r io.ReaderAt, size int64, isFile bool) error {
	var schema flatbuffers.Table
	if isFile {
		tail, err := readArrowPart(r, size, size-int64(len(arrowFile))-4, 4)
		if err != nil {
			return err
		}
		n := int64(binary.LittleEndian.Uint32(tail))
		footer, err := readArrowPart(r, size, size-int64(len(arrowFile))-4-n, n)
		if err != nil {
			return err
		}
		root := rootTable(footer)
		schema = flatbuffers.Table{Bytes: footer, Pos: root.Indirect(root.Pos + flatbuffers.UOffsetT(root.Offset(slotFooterSchema)))}
	} else {
		head, err := readArrowPart(r, size, int64(len(arrowBegin)), 4)
		if err != nil {
			return err
		}
		message, err := readArrowPart(r, size, int64(len(arrowBegin))+4, int64(binary.LittleEndian.Uint32(head)))
		if err != nil {
			return err
		}
		root := rootTable(message)
		root.Union(&schema, flatbuffers.UOffsetT(root.Offset(slotMessageHeader)))
	}
	left := len(schema.Bytes) / 4 // an entry of a vector has four bytes
	return errors.Join(checkFields(schema, slotFields, 0, &left), checkEntries(schema, slotSchemaMeta, &left))
}

// readArrowPart reads n bytes of the size bytes of r.
func readArrowPart(r io.ReaderAt, size, at, n int64) ([]byte, error) {
	if at < 0 || n < 4 || n > maxFooter || at+n > size {
		return nil, fmt.Errorf("has a schema of %d bytes at %d, in a file of %d", n, at, size)
	}
	part := make([]byte, n)
	_, err := r.ReadAt(part, at)
	return part, err
}

func rootTable(b []byte) flatbuffers.Table {
	return flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
}

// checkFields checks the fields in a vector of t, of which all vectors together may have `left` more
// entries.
func checkFields(t flatbuffers.Table, slot flatbuffers.VOffsetT, depth int, left *int) error {
	if depth > maxFieldDepth {
		return fmt.Errorf("has columns nested deeper than %d", maxFieldDepth)
	}
	if err := checkEntries(t, slot, left); err != nil {
		return err
	}
	offset := flatbuffers.UOffsetT(t.Offset(slot))
	if offset == 0 {
		return nil
	}
	for i := range t.VectorLen(offset) {
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(t.Vector(offset) + flatbuffers.UOffsetT(i)*4)}
		if err := errors.Join(checkFields(field, slotChildren, depth+1, left), checkEntries(field, slotFieldMeta, left)); err != nil {
			return err
		}
	}
	return nil
}

// checkEntries counts the entries of a vector of t.
func checkEntries(t flatbuffers.Table, slot flatbuffers.VOffsetT, left *int) error {
	offset := flatbuffers.UOffsetT(t.Offset(slot))
	if offset == 0 {
		return nil
	}
	if *left -= t.VectorLen(offset); *left < 0 {
		return errors.New("has a damaged schema, with more entries than it has room for")
	}
	return nil
}
