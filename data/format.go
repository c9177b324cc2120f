package data

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// fileFormat is a format whose bytes are not text.
type fileFormat struct {
	name string
	// suffixes are those of files that can't be read.
	suffixes []string
	// magics are what a file has at offset `at`, one of them.
	at     int
	magics []string
	// readAs is the suffix with which such a file is read. If it is "", undo says how to turn it into
	// one that can be read.
	readAs, undo string
}

var fileFormats = []fileFormat{
	{name: "a gzip file", magics: []string{"\x1f\x8b\x08"}, readAs: ".gz"},
	{name: "a zstd file", magics: []string{"\x28\xb5\x2f\xfd"}, readAs: ".zst"},
	{name: "a Parquet file", magics: []string{"PAR1\x15"}, readAs: ".parquet"}, // \x15 begins the first page's header
	{name: "an Arrow file", magics: []string{"ARROW1\x00\x00"}, readAs: ".arrow"},
	{name: "an xz file", suffixes: []string{".xz"}, magics: []string{"\xfd7zXZ\x00"}, undo: "decompress it"},
	{name: "an LZMA file", suffixes: []string{".lzma"}, undo: "decompress it"},
	// The digit is the size of a block; what follows is the magic number of a block, or of the end.
	{name: "a bzip2 file", suffixes: []string{".bz2"}, magics: bzip2Magics(), undo: "decompress it"},
	{name: "an LZ4 file", suffixes: []string{".lz4"}, magics: []string{"\x04\x22\x4d\x18", "\x02\x21\x4c\x18"}, undo: "decompress it"},
	{name: "a Brotli file", suffixes: []string{".br"}, undo: "decompress it"},
	{name: "a 7-Zip archive", suffixes: []string{".7z"}, magics: []string{"7z\xbc\xaf\x27\x1c"}, undo: "unpack it"},
	{name: "a zip archive", suffixes: []string{".zip"}, magics: []string{"PK\x03\x04", "PK\x05\x06", "PK\x07\x08"}, undo: "unpack it"},
	{name: "a RAR archive", suffixes: []string{".rar"}, magics: []string{"Rar!\x1a\x07"}, undo: "unpack it"},
	{name: "a tar archive", suffixes: []string{".tar", ".tgz", ".tzst"}, at: 257, magics: []string{"ustar\x0000", "ustar  \x00"}, undo: "unpack it"},
}

func bzip2Magics() (all []string) {
	for size := '1'; size <= '9'; size++ {
		all = append(all, "BZh"+string(size)+"1AY&SY", "BZh"+string(size)+"\x17\x72\x45\x38\x50\x90")
	}
	return all
}

// headBytes is how much of a file's beginning is needed to know its format, and whether it is binary.
const headBytes = 8000

// formatOf returns the format of a file that begins with head; nil for text.
func formatOf(head []byte) *fileFormat {
	for i, f := range fileFormats {
		if len(head) >= f.at && slices.ContainsFunc(f.magics, func(m string) bool { return bytes.HasPrefix(head[f.at:], []byte(m)) }) {
			return &fileFormats[i]
		}
	}
	return nil
}

// NotText returns what a file is if it begins with the magic number of a compressed file or an archive,
// such as "a gzip file", and otherwise "".
func NotText(content []byte) string {
	if f := formatOf(content); f != nil {
		return f.name
	}
	return ""
}

// checkName refuses a file whose name says that it can't be read.
func (f sourceFile) checkName() error {
	suffix := strings.ToLower(path.Ext(trimCompression(f.name)))
	for _, format := range fileFormats {
		if slices.Contains(format.suffixes, suffix) {
			return f.refuse(&format)
		}
	}
	return nil
}

// checkHead refuses a file whose content, after decompression, begins with head, if that is not text.
func (f sourceFile) checkHead(head []byte) error {
	if format := formatOf(head); format != nil {
		return f.refuse(format)
	}
	return nil
}

func (f sourceFile) refuse(format *fileFormat) error {
	compressed := trimCompression(f.name) != f.name
	switch {
	case format.readAs == "" && compressed:
		return fmt.Errorf("data.text: %s: holds %s, which can't be read: %s, or leave the file out", f.path, format.name, format.undo)
	case format.readAs == "":
		return fmt.Errorf("data.text: %s: is %s, which can't be read: %s, or leave it out", f.path, format.name, format.undo)
	case compressed:
		return fmt.Errorf("data.text: %s: holds %s: decompress it, and let the name of what it holds end in %s", f.path, format.name, format.readAs)
	}
	return fmt.Errorf("data.text: %s: is %s, and is read as one if its name ends in %s: rename it, or leave it out", f.path, format.name, format.readAs)
}
