package data

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tarHeader is the beginning of a tar archive.
func tarHeader() string { return "a.txt" + strings.Repeat("\x00", 252) + "ustar\x0000" }

// TestRefusedFormats: what can't be read as text is refused wherever text is read, by its name or by what
// it begins with.
func TestRefusedFormats(t *testing.T) {
	const archive = ", which can't be read: unpack it, or leave it out"
	const alone = ", which can't be read: decompress it, or leave it out"
	for _, test := range []struct{ name, content, want string }{
		{"x.txt.xz", "", "is an xz file" + alone},
		{"x.XZ", "any", "is an xz file" + alone},
		{"x.txt", "\xfd7zXZ\x00\x00", "is an xz file" + alone},
		{"x.lzma", "", "is an LZMA file" + alone},
		{"x.jsonl.bz2", "", "is a bzip2 file" + alone},
		{"x.jsonl", "BZh91AY&SY\x00", "is a bzip2 file" + alone},
		{"x", "BZh1\x17rE8P\x90\x00", "is a bzip2 file" + alone},
		{"x.lz4", "", "is an LZ4 file" + alone},
		{"x", "\x04\x22M\x18", "is an LZ4 file" + alone},
		{"x.br", "", "is a Brotli file" + alone},
		{"x.7z", "", "is a 7-Zip archive" + archive},
		{"x", "7z\xbc\xaf'\x1c", "is a 7-Zip archive" + archive},
		{"x.zip", "", "is a zip archive" + archive},
		{"x.docx", "PK\x03\x04", "is a zip archive" + archive},
		{"x", "Rar!\x1a\x07\x01", "is a RAR archive" + archive},
		{"x.tgz", "", "is a tar archive" + archive},
		{"x", tarHeader(), "is a tar archive" + archive},
		{"x.tar.gz", "", "holds a tar archive, which can't be read: unpack it, or leave the file out"},
		{"x.gz", tarHeader(), "holds a tar archive, which can't be read: unpack it, or leave the file out"},
		{"x.txt", string(compressed(t, ".gz", "text")), "is a gzip file, and is read as one if its name ends in .gz: rename it, or leave it out"},
		{"x.jsonl", string(compressed(t, ".zst", "text")), "is a zstd file, and is read as one if its name ends in .zst: rename it, or leave it out"},
		{"x.zst", string(compressed(t, ".gz", "text")), "holds a gzip file: decompress it, and let the name of what it holds end in .gz"},
		{"x", "PAR1\x15\x00", "is a Parquet file, and is read as one if its name ends in .parquet: rename it, or leave it out"},
		{"x", "ARROW1\x00\x00", "is an Arrow file, and is read as one if its name ends in .arrow: rename it, or leave it out"},
	} {
		t.Run(test.name+" "+test.want, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.name)
			content := []byte(test.content)
			if trimCompression(test.name) != test.name {
				content = compressed(t, test.name, test.content)
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			want := "data.text: DIR/" + test.name + ": " + test.want
			c := testConfig(t, dir)
			_, err := Prepare(t.Context(), c, nil)
			checkError(t, err, dir, want)
			_, err = TrainTokenizer(t.Context(), c.Text, 300, nil)
			checkError(t, err, dir, want)
			checkError(t, ReadText(t.Context(), path, TextConfig{JSONLField: "text"}, func([]byte) error { return nil }), dir, want)
		})
	}
}

// TestTextLikeFormats: text that begins like a magic number is text.
func TestTextLikeFormats(t *testing.T) {
	for _, text := range []string{"BZh9 is how bzip2 files begin", "PAR1 and PAR2", "ARROW1", "7z", "PK", "ustar", "", strings.Repeat("x", 257) + "ustar is here"} {
		if got := NotText([]byte(text)); got != "" {
			t.Errorf("%q is %s", text, got)
		}
	}
}

// TestBinaryFiles: they are read byte for byte, and warned of once.
func TestBinaryFiles(t *testing.T) {
	for _, test := range []struct {
		files map[string]string
		want  int
	}{
		{map[string]string{"a.png": "\x89PNG\x00\x00", "b.txt": "t\x00e\x00x\x00t\x00"}, 1},
		{map[string]string{"a.bin.gz": "a\x00b"}, 1},
		{map[string]string{"a.txt": "text", "b.txt": "\xff\xfe", "c.jsonl": `{"text": "\u0000"}`}, 0},
	} {
		var log bytes.Buffer
		old := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		m := mustPrepare(t, testConfig(t, writeFiles(t, test.files)))
		slog.SetDefault(old)
		if got := strings.Count(log.String(), "it has NUL bytes"); got != test.want {
			t.Errorf("%v: %d warnings, want %d:\n%s", test.files, got, test.want, &log)
		}
		if got := m.Train.Documents + m.Validation.Documents; got != int64(len(test.files)) {
			t.Errorf("%v: %d documents are read", test.files, got)
		}
	}
}
