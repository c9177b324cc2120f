package data

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxDocument limits one document's text in bytes: a document is tokenised in memory, as a whole.
const maxDocument = 1 << 30

// byteOrderMark begins UTF-8 files of some Windows programs. It is no part of JSON.
var byteOrderMark = []byte("\uFEFF")

// sourceFile is one text file that the patterns select.
type sourceFile struct {
	path string // as opened
	name string // relative to the folder, with slashes, with its compression suffix
	// jsonl says that it has a JSON object on each line.
	jsonl bool
	// validation says that data.text.validation selects it.
	validation bool
	// warned is common to all files.
	warned *warned
}

// warned is what has been warned of: once for all files.
type warned struct {
	lines  sync.Once // JSONL that is read as one document
	binary sync.Once // files with NUL bytes
}

// source returns the file at path, which is called name.
func (t TextConfig) source(path, name string, warned *warned) sourceFile {
	return sourceFile{
		path: path, name: name, warned: warned,
		jsonl:      strings.HasSuffix(trimCompression(name), ".jsonl") || matchesAny(t.JSONL, name),
		validation: matchesAny(t.Validation, name),
	}
}

// trimCompression removes the suffix of a compressed file.
func trimCompression(name string) string {
	for _, suffix := range []string{".gz", ".zst"} {
		if inner, ok := strings.CutSuffix(name, suffix); ok {
			return inner
		}
	}
	return name
}

// listFiles returns the files under root that t selects, sorted by name. Symbolic links are not
// followed: a link to a file inside the tree would duplicate its text, and one that leads out of it
// would make the result depend on another folder. notRegular counts the links and special files
// that the patterns match. The folder of shards that are made from the text, "" if there is none, isn't
// text, nor is what a prepare that was killed left next to it.
func listFiles(ctx context.Context, root, shards string, t TextConfig) (files []sourceFile, notRegular int, err error) {
	// The root itself may be a link, as /usr/lib/go is.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, 0, fmt.Errorf("data.text.path: %w", err)
	}
	own, err := within(root, shards)
	if err != nil {
		return nil, 0, fmt.Errorf("data.shards: %w", err)
	}
	told := new(warned)
	watch, what := watching(ctx), "listing "+root
	next := watch(what)
	defer func() { next() }()
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		next()
		next = watch(what)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if own != "" && (rel == own || rel == own+partialSuffix) {
				return fs.SkipDir
			}
			return nil
		}
		name := filepath.ToSlash(rel)
		if !t.matches(name) || own != "" && rel == own+lockSuffix {
			return nil
		}
		if !entry.Type().IsRegular() {
			notRegular++
			return nil
		}
		files = append(files, t.source(path, name, told))
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("data.text.path: %w", err)
	}
	slices.SortFunc(files, func(a, b sourceFile) int { return strings.Compare(a.name, b.name) })
	if len(files) == 0 {
		return nil, notRegular, fmt.Errorf("data.text: no file in %s matches include %q without matching exclude %q (%d links and special files were left out): change the patterns or the path",
			root, t.Include, t.Exclude, notRegular)
	}
	if err := t.checkPatterns(root, files); err != nil {
		return nil, notRegular, err
	}
	for _, f := range files {
		if err := f.checkName(); err != nil { // now, not after hours of reading other files
			return nil, notRegular, err
		}
	}
	return files, notRegular, nil
}

// within returns the path of a folder relative to root, which is not a link; "" if it is not below it.
func within(root, folder string) (string, error) {
	if folder == "" {
		return "", nil
	}
	folder = filepath.Clean(folder)
	// It may not exist yet.
	parent, err := filepath.EvalSymlinks(filepath.Dir(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return "", err
	}
	if root, err = filepath.Abs(root); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, filepath.Join(parent, filepath.Base(folder)))
	if err != nil || !filepath.IsLocal(rel) {
		return "", nil // on another drive, or elsewhere
	}
	return rel, nil
}

func (t TextConfig) matches(name string) bool {
	return (len(t.Include) == 0 || matchesAny(t.Include, name)) && !matchesAny(t.Exclude, name)
}

func matchesAny(patterns []string, name string) bool {
	// Patterns were validated, so Match cannot fail.
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return doublestar.MatchUnvalidated(pattern, name) || doublestar.MatchUnvalidated(pattern, trimCompression(name))
	})
}

// checkPatterns reports patterns of JSONL that match none of the files, and patterns of validation
// files that leave one of the splits without a file.
func (t TextConfig) checkPatterns(root string, files []sourceFile) error {
	if len(t.JSONL) > 0 && !slices.ContainsFunc(files, func(f sourceFile) bool { return matchesAny(t.JSONL, f.name) }) {
		return fmt.Errorf("data.text.jsonl: none of the files that are read from %s (%d) matches %q: change the patterns", root, len(files), t.JSONL)
	}
	if len(t.Validation) == 0 {
		return nil
	}
	held := 0
	for _, f := range files {
		if f.validation {
			held++
		}
	}
	switch held {
	case 0:
		return fmt.Errorf("data.text.validation: none of the files that are read from %s (%d) matches %q: change the patterns, add those files to data.text.include, or leave data.text.validation empty ([]), which holds out a share of all documents", root, len(files), t.Validation)
	case len(files):
		return fmt.Errorf("data.text.validation: all files that are read from %s (%d) match %q: leave some for training", root, len(files), t.Validation)
	}
	return nil
}

// open returns the file's decompressed content.
func (f sourceFile) open(w Watch) (io.ReadCloser, error) {
	file, err := openWatched(w, f.path)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(f.name, ".gz"):
		zr, err := gzip.NewReader(bufio.NewReader(file))
		if err != nil {
			return nil, errors.Join(cutShort(err), file.Close())
		}
		return readCloser{zr, func() error { return errors.Join(zr.Close(), file.Close()) }}, nil
	case strings.HasSuffix(f.name, ".zst"):
		zr, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return readCloser{zr, func() error { zr.Close(); return file.Close() }}, nil
	}
	return file, nil
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

// cutShort turns the EOF of an empty compressed file into a proper error.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadText calls emit with the text of each document in a file, which is read as one of data.text
// is: decompressed, and by line or row if it is JSONL, Parquet or Arrow. Of t, JSONL, whose patterns
// match the file's name without its folder, and JSONLField are used.
func ReadText(ctx context.Context, path string, t TextConfig, emit func(text []byte) error) error {
	f := t.source(path, filepath.Base(path), new(warned))
	f.name = filepath.ToSlash(path)
	return f.read(ctx, t.JSONLField, 0, func(d rawDocument) error {
		text, err := d.text(t.JSONLField)
		if err != nil {
			return fmt.Errorf("data.text: %s: %w", d.name, err)
		}
		return emit(text)
	})
}

// rawDocument is what is read from disk for one document: its text, or the line of JSON that
// contains it.
type rawDocument struct {
	name  string // path relative to the folder, and ":line" for a line of JSONL
	data  []byte
	jsonl bool
}

// read calls emit for each document of the file from document skip on, in order. Each gets its own
// bytes. field is the column of a Parquet or Arrow file.
func (f sourceFile) read(ctx context.Context, field string, skip int64, emit func(rawDocument) error) (err error) {
	if format := path.Ext(trimCompression(f.name)); format == ".parquet" || format == ".arrow" {
		switch {
		case trimCompression(f.name) != f.name:
			return fmt.Errorf("data.text: %s: can't be read while it is compressed as a whole: decompress it", f.path)
		case format == ".arrow":
			return f.readArrow(ctx, field, skip, emit)
		}
		return f.readParquet(ctx, field, skip, emit)
	}
	if err := f.checkName(); err != nil {
		return err
	}
	file, err := f.open(watching(ctx))
	if err != nil {
		return f.failed(err)
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 64<<10)
	head, err := in.Peek(headBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return f.failed(err)
	}
	if err := f.checkHead(head); err != nil {
		return err
	}

	if !f.jsonl {
		if bytes.IndexByte(head, 0) >= 0 {
			f.warned.binary.Do(func() {
				slog.Warn("a file is read as text, byte for byte, although it has NUL bytes, as binary files and UTF-16 have: leave such files out by data.text.exclude, or by --exclude, or convert them to UTF-8",
					"file", f.path)
			})
		}
		text, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
		if err != nil {
			return f.failed(err)
		}
		if len(text) > maxDocument {
			return fmt.Errorf("data.text: %s: is larger than %d bytes, the limit for one document: split it, or make it JSONL", f.path, maxDocument)
		}
		if isJSONL(text, field) {
			f.warned.lines.Do(func() {
				slog.Warn("a file is read as one document, although its first line is a JSON object with a text: name such files in data.text.jsonl, or by --jsonl",
					"file", f.path, "field", field)
			})
		}
		return emit(rawDocument{name: f.name, data: text})
	}

	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxDocument)
	for n := int64(1); lines.Scan(); n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n <= skip {
			continue
		}
		line := bytes.Clone(lines.Bytes())
		if n == 1 {
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		doc := rawDocument{name: fmt.Sprintf("%s:%d", f.name, n), data: line, jsonl: true}
		if err := emit(doc); err != nil {
			return err
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("data.text: %s: has a line larger than %d bytes, the limit for one document: split it", f.path, maxDocument)
	} else if err != nil {
		return f.failed(err)
	}
	return nil
}

// failed returns the error of reading the file. Some causes name it already.
func (f sourceFile) failed(cause error) error {
	var named *fs.PathError
	if errors.As(cause, &named) {
		return fmt.Errorf("data.text: %w", cause)
	}
	return fmt.Errorf("data.text: %s: %w", f.path, cause)
}

// text returns the document's text: the data itself, or the field of the JSON line. A blank line is
// an empty document.
func (d rawDocument) text(field string) ([]byte, error) {
	if !d.jsonl {
		return d.data, nil
	}
	return jsonText(d.data, field)
}

// isJSONL reports whether the first line is a JSON object with a string in the field.
func isJSONL(text []byte, field string) bool {
	line, _, _ := bytes.Cut(bytes.TrimPrefix(text, byteOrderMark), []byte("\n"))
	if !bytes.HasPrefix(line, []byte("{")) {
		return false
	}
	_, err := jsonText(line, field)
	return err == nil
}

// badJSON is the error of JSON that can't be decoded, without names of Go's types.
func badJSON(err error) error {
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other) && other.Field != "":
		return fmt.Errorf("bad JSON: %s can't be a JSON %s", other.Field, other.Value)
	case errors.As(err, &other):
		return fmt.Errorf("bad JSON: is a JSON %s, not an object", other.Value)
	}
	return fmt.Errorf("bad JSON: %w", err)
}

func jsonText(line []byte, field string) ([]byte, error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	// encoding/json would replace invalid text by U+FFFD, here and for lone surrogates below.
	if !utf8.Valid(line) {
		return nil, errors.New("the line is not valid UTF-8: fix it, or leave the file out with data.text.exclude")
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return nil, badJSON(err)
	}
	raw, ok := object[field]
	if !ok {
		names := make([]string, 0, len(object))
		for name := range object {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("no field %q among %q: set data.text.jsonl_field", field, names)
	}
	if raw[0] != '"' {
		return nil, fmt.Errorf("field %q is not a string: set data.text.jsonl_field", field)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, badJSON(err)
	}
	if strings.Count(text, "\uFFFD") > bytes.Count(raw, []byte("\uFFFD"))+bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return nil, fmt.Errorf("field %q has half of a surrogate pair (\\ud800 to \\udfff), which is not a character: fix the line", field)
	}
	return []byte(text), nil
}
