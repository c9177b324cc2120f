package data

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/apache/arrow/go/v16/arrow/array"
	"golang.org/x/sync/errgroup"
)

// Verified is the result of Verify for one shard.
type Verified struct {
	Split     Split  `json:"split"`
	File      string `json:"file"` // its path
	Documents int64  `json:"documents"`
	Tokens    int64  `json:"tokens"`
	// Err is what is wrong with it, or nil.
	Err error `json:"-"`
}

// Verify reads every shard of a folder completely, several at once: its checksum, and its rows
// against the format and against the counts of the manifest. There is one Verified for each shard,
// in the manifest's order. The error is about the folder: its manifest can't be read, or counts
// different documents than the good shards contain.
//
// progress, which may be nil, is called after each shard, from one goroutine at a time.
func Verify(ctx context.Context, dir string, progress func(done, shards int)) ([]Verified, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	done := 0
	tell := func() {
		if progress != nil {
			mu.Lock()
			defer mu.Unlock()
			done++
			progress(done, len(m.Train.Shards)+len(m.Validation.Shards))
		}
	}
	var list []Verified
	for _, split := range []Split{Train, Validation} {
		part, err := verifySplit(ctx, dir, m, split, tell)
		list = append(list, part...)
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

func verifySplit(ctx context.Context, dir string, m Manifest, split Split, done func()) ([]Verified, error) {
	info := m.Split(split)
	list := make([]Verified, len(info.Shards))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range info.Shards {
		g.Go(func() error {
			v := &list[i]
			*v = Verified{Split: split, File: filepath.Join(dir, s.File), Tokens: s.Tokens}
			if v.Err = s.verify(ctx, dir); v.Err == nil {
				v.Documents, v.Err = s.verifyRows(ctx, dir, m.Tokenizer, split)
			}
			done()
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var documents int64
	for _, v := range list {
		if v.Err != nil {
			return list, nil
		}
		documents += v.Documents
	}
	if documents != info.Documents {
		return list, fmt.Errorf("data.shards: %s: the %s split has %d documents, the manifest says %d: %s", dir, split, documents, info.Documents, remedy)
	}
	return list, nil
}

// verifyRows decodes a shard and returns the number of its documents.
func (s Shard) verifyRows(ctx context.Context, dir string, want TokenizerInfo, split Split) (documents int64, err error) {
	f, reader, err := s.openFile(dir, want, split)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	path := filepath.Join(dir, s.File)
	c := rowChecker{eos: want.EOS}
	for group := range reader.rowGroups {
		if err := c.rowGroup(ctx, reader, group); err != nil {
			return 0, shardError(path, err)
		}
	}
	if c.open {
		return 0, shardError(path, fmt.Errorf("ends within %s", c.document))
	}
	if c.bytes != s.Bytes {
		return 0, shardError(path, fmt.Errorf("has %d bytes of text, the manifest says %d", c.bytes, s.Bytes))
	}
	return c.documents, nil
}

// rowChecker tracks the documents through a shard's rows.
type rowChecker struct {
	eos       int32
	documents int64 // that have ended
	bytes     int64 // of their text
	document  string
	open      bool // document continues in the next row
}

func (c *rowChecker) rowGroup(ctx context.Context, reader *shardReader, group int) error {
	rec, err := reader.record(ctx, group, columnDocument, columnTokens, columnBytes)
	if err != nil {
		return fmt.Errorf("row group %d: %w", group, err)
	}
	names, isString := rec.Column(0).(*array.String)
	bytes, isInt64 := rec.Column(2).(*array.Int64)
	if !isString || !isInt64 {
		return fmt.Errorf("row group %d: columns are %v and %v, want string and int64", group, rec.Column(0).DataType(), rec.Column(2).DataType())
	}
	offsets, ids, err := reader.tokenList(rec.Column(1), group)
	if err != nil {
		return fmt.Errorf("row group %d: %w", group, err)
	}
	for r := range int(rec.NumRows()) {
		if offsets[r] >= offsets[r+1] {
			return fmt.Errorf("row group %d, row %d: has no tokens", group, r)
		}
		if err := c.row(names.Value(r), ids[offsets[r]:offsets[r+1]]); err != nil {
			return fmt.Errorf("row group %d, row %d: %w", group, r, err)
		}
		c.bytes += bytes.Value(r)
	}
	return nil
}

func (c *rowChecker) row(document string, ids []int32) error {
	if c.open && document != c.document {
		return fmt.Errorf("%s begins before %s has ended with an end-of-text token", document, c.document)
	}
	last := len(ids) - 1
	for _, id := range ids[:last] {
		if id == c.eos {
			return fmt.Errorf("%s has an end-of-text token before its end", document)
		}
	}
	c.document, c.open = document, ids[last] != c.eos
	if !c.open {
		c.documents++
	}
	return nil
}
