package data

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// smallLayout gives small texts several row groups, shards and rows per document.
var smallLayout = layout{RowGroupTokens: 64, ShardTokens: 2000}

// writeFiles makes a folder of files from name -> content. Names that end in .gz or .zst are
// compressed.
func writeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, compressed(t, name, content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func compressed(t testing.TB, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	switch filepath.Ext(name) {
	case ".gz":
		w := gzip.NewWriter(&out)
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	case ".zst":
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	default:
		out.WriteString(content)
	}
	return out.Bytes()
}

// corpus returns n different documents of different lengths, one of them long.
func corpus(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("doc%03d.txt", i)] = strings.Repeat(fmt.Sprintf("document %d. ", i), 1+i%7)
	}
	files["long.txt"] = strings.Repeat("a long document, cut into rows. ", 20)
	return files
}

// testConfig describes shards of the folder, without a validation split.
func testConfig(t testing.TB, folder string) Config {
	t.Helper()
	c := DefaultConfig()
	c.Text.Path = folder
	c.Shards = filepath.Join(t.TempDir(), "shards")
	c.SeqLen = 16
	c.ValidationFraction = 0
	return c
}

func mustPrepare(t testing.TB, c Config) Manifest {
	t.Helper()
	m, err := prepare(context.Background(), c, smallLayout, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustOpen(t testing.TB, c Config, split Split) *Dataset {
	t.Helper()
	d, err := Open(context.Background(), c, split)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// stream decodes the whole token stream of a dataset.
func stream(t testing.TB, d *Dataset) []int32 {
	t.Helper()
	files := openShards{split: d.parts[0]}
	defer files.close()
	tokens, err := d.parts[0].appendTokens(context.Background(), &files, nil, 0, d.Tokens())
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// documents splits a token stream at its end-of-text tokens and decodes the parts.
func documents(t testing.TB, d *Dataset) []string {
	t.Helper()
	var out []string
	var open []int32
	for _, id := range stream(t, d) {
		if id == d.Tokenizer().EOS() {
			out = append(out, string(d.Tokenizer().Decode(nil, open)))
			open = open[:0]
			continue
		}
		open = append(open, id)
	}
	if len(open) > 0 {
		t.Fatalf("the stream ends within a document: %q", d.Tokenizer().Decode(nil, open))
	}
	return out
}

// checkError compares an error's text, in which DIR stands for dir.
func checkError(t testing.TB, err error, dir, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	got := err.Error()
	if dir != "" {
		got = strings.ReplaceAll(got, dir, "DIR")
	}
	if got != want {
		t.Errorf("error is\n%s\nwant\n%s", got, want)
	}
}

// verify returns the first error that Verify finds.
func verify(dir string) error {
	list, err := Verify(context.Background(), dir, nil)
	for _, v := range list {
		if v.Err != nil {
			return v.Err
		}
	}
	return err
}

func mustEncode(t testing.TB, tok Tokenizer, dst []int32, text []byte) []int32 {
	t.Helper()
	ids, err := tok.Encode(dst, text)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
