package data

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Tokenizer turns text into token ids and back. It is safe for use by several goroutines at once.
type Tokenizer interface {
	// Name is the spec from which NewTokenizer makes it.
	Name() string

	// VocabSize is the number of ids: every id is in [0, VocabSize). A model's vocabulary must be at least as
	// large; recipes round it up to a multiple of 64 so that matrix tiles are full (257 becomes 320).
	VocabSize() int

	// EOS is the id of the end-of-text token, which follows every document.
	EOS() int32

	// Encode appends the ids of text to dst. It never yields EOS: text that spells a special
	// token's name is ordinary text. The error is for a pre-tokenizer's regular expression that
	// takes too long.
	Encode(dst []int32, text []byte) ([]int32, error)

	// Decode appends the text of ids to dst. Special tokens are left out.
	Decode(dst []byte, ids []int32) []byte

	// TokenBytes is the number of bytes of text that id stands for, 0 for a special token.
	TokenBytes(id int32) int

	// Fingerprint changes whenever some text would get different ids.
	Fingerprint() string

	// ExportFiles returns the files, by name, with which other programs load the same tokenizer:
	// tokenizer.json if the Hugging Face libraries can produce the same ids, and tokenizer.model
	// for SentencePiece's own package.
	ExportFiles() map[string][]byte
}

// NewTokenizer makes the tokenizer that spec names: "bytes", whose ids 0..255 are the bytes and 256
// the end of text; or a file, Hugging Face's tokenizer.json or SentencePiece's tokenizer.model. In
// a file's path $NAME and ${NAME} are replaced.
func NewTokenizer(spec string) (Tokenizer, error) {
	open, err := tokenizerOpener(spec)
	if err != nil {
		return nil, err
	}
	if open == nil {
		return byteTokenizer{}, nil
	}
	path, err := expand("data.tokenizer", spec)
	if err != nil {
		return nil, err
	}
	return opened.get(path, open, spec)
}

// fileTokenizer is a Tokenizer from a file, which is named after it is opened.
type fileTokenizer interface {
	Tokenizer
	rename(name string)
}

// tokenizerOpener returns the function that reads the file that spec names; nil for bytes, which
// has none.
func tokenizerOpener(spec string) (func(path string) (fileTokenizer, error), error) {
	switch {
	case spec == "bytes":
		return nil, nil
	case filepath.Ext(spec) == ".json":
		return openHuggingFace, nil
	case filepath.Ext(spec) == ".model":
		return openSentencePiece, nil
	}
	for _, name := range []string{tokenizerJSON, tokenizerModel} {
		path := filepath.Join(spec, name)
		if _, err := os.Stat(path); err == nil {
			return nil, fmt.Errorf("no tokenizer %q: this is a folder, use %s", spec, path)
		}
	}
	return nil, fmt.Errorf("no tokenizer %q: use bytes, or the path of a tokenizer.json or tokenizer.model", spec)
}

// opened caches the tokenizers of files, since reading one takes up to a second and a run needs it
// several times.
var opened tokenizerCache

type tokenizerCache struct {
	mu    sync.Mutex
	files map[string]openedFile
}

type openedFile struct {
	changed time.Time
	size    int64
	tok     fileTokenizer
}

// get opens the file, unless it has been opened before and has not changed since.
func (c *tokenizerCache) get(path string, open func(string) (fileTokenizer, error), name string) (Tokenizer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%w; relative paths begin in the folder where the program runs", err)
	}
	if err != nil {
		return nil, err
	}
	if f, ok := c.files[path]; ok && f.changed.Equal(info.ModTime()) && f.size == info.Size() && f.tok.Name() == name {
		return f.tok, nil
	}
	tok, err := open(path)
	if err != nil {
		return nil, err
	}
	tok.rename(name)
	if c.files == nil {
		c.files = map[string]openedFile{}
	}
	c.files[path] = openedFile{info.ModTime(), info.Size(), tok}
	return tok, nil
}

// fingerprintOf identifies a tokenizer by its file and its end-of-text token.
func fingerprintOf(file []byte, eos int32) string {
	sum := sha256.Sum256(fmt.Appendf(slices.Clip(file), "\neos %d", eos))
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// TextBytes is the number of bytes of text that ids stand for.
func TextBytes(tok Tokenizer, ids []int32) int64 {
	var n int64
	for _, id := range ids {
		n += int64(tok.TokenBytes(id))
	}
	return n
}

// BitsPerByte is the total cross-entropy of the targets in bits, divided by the bytes of text they
// stand for: nats / (ln 2 * bytes). The nats of end-of-text targets count, and their bytes are 0,
// so the figure also covers where documents end, and can be compared between tokenizers.
func BitsPerByte(nats float64, bytes int64) float64 {
	return nats / (math.Ln2 * float64(bytes))
}
