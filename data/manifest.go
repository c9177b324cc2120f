package data

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
)

const (
	// formatVersion is the version of the manifest and of the shards.
	formatVersion = 1

	manifestName = "manifest.json"
)

// A Split is one side of the documents.
type Split string

// The splits.
const (
	Train      Split = "train"
	Validation Split = "validation"
)

// Manifest describes a folder of shards. It is the folder's manifest.json, which is written last,
// so a folder that has one is complete.
type Manifest struct {
	Format     int           `json:"format"`
	Tokenizer  TokenizerInfo `json:"tokenizer"`
	Source     *Source       `json:"source,omitempty"` // nil if another program wrote the shards
	Train      SplitInfo     `json:"train"`
	Validation SplitInfo     `json:"validation"`
}

// TokenizerInfo identifies the tokenizer of the shards.
type TokenizerInfo struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	VocabSize   int    `json:"vocab_size"`
	EOS         int32  `json:"eos_id"`
}

// Describe returns what identifies a tokenizer, as in manifests.
func Describe(t Tokenizer) TokenizerInfo {
	return TokenizerInfo{Name: t.Name(), Fingerprint: t.Fingerprint(), VocabSize: t.VocabSize(), EOS: t.EOS()}
}

// Source says what text the shards were made from.
type Source struct {
	Settings
	Folder         string `json:"folder"`          // Path with variables replaced
	Files          int    `json:"files"`           // files read
	NotRegular     int    `json:"not_regular"`     // links and special files that matched and were not read
	EmptyDocuments int64  `json:"empty_documents"` // left out of the shards
}

// Settings are the keys of a Config that determine the contents of the shards, as written there,
// before variables are replaced: shards stay valid when a toolchain moves, or on a machine without
// the text.
type Settings struct {
	Path               string   `json:"path"`
	Include            []string `json:"include"`
	Exclude            []string `json:"exclude"`
	JSONL              []string `json:"jsonl,omitempty"`
	JSONLField         string   `json:"jsonl_field"`
	Validation         []string `json:"validation,omitempty"`
	ValidationFraction float64  `json:"validation_fraction"`
}

func (c Config) settings() Settings {
	fraction := c.ValidationFraction
	if len(c.Text.Validation) > 0 {
		fraction = 0 // not used
	}
	return Settings{
		Path:               c.Text.Path,
		Include:            append([]string{}, c.Text.Include...),
		Exclude:            append([]string{}, c.Text.Exclude...),
		JSONL:              c.Text.JSONL,
		JSONLField:         c.Text.JSONLField,
		Validation:         c.Text.Validation,
		ValidationFraction: fraction,
	}
}

// fingerprint identifies the settings inside a shard.
func (s Settings) fingerprint() string {
	return checksum(mustJSON(s))
}

// differences names the keys whose values differ, with both values.
func (s Settings) differences(now Settings) []string {
	var out []string
	add := func(key string, differ bool, was, is any) {
		if differ {
			out = append(out, fmt.Sprintf("%s was %v, is %v", key, was, is))
		}
	}
	add("text.path", s.Path != now.Path, s.Path, now.Path)
	add("text.include", !slices.Equal(everything(s.Include), everything(now.Include)), s.Include, now.Include)
	add("text.exclude", !slices.Equal(s.Exclude, now.Exclude), s.Exclude, now.Exclude)
	add("text.jsonl", !slices.Equal(s.JSONL, now.JSONL), s.JSONL, now.JSONL)
	add("text.jsonl_field", s.JSONLField != now.JSONLField, s.JSONLField, now.JSONLField)
	add("text.validation", !slices.Equal(s.Validation, now.Validation), s.Validation, now.Validation)
	add("validation_fraction", s.ValidationFraction != now.ValidationFraction, s.ValidationFraction, now.ValidationFraction)
	return out
}

// everything replaces no patterns of files to read by the one that means the same.
func everything(include []string) []string {
	if len(include) == 0 {
		return []string{"**/*"}
	}
	return include
}

// SplitInfo counts one split.
type SplitInfo struct {
	Documents int64 `json:"documents"`
	Tokens    int64 `json:"tokens"` // end-of-text tokens included
	Bytes     int64 `json:"bytes"`  // of text

	// LongestDocument is in tokens, including its end-of-text token.
	LongestDocument int64 `json:"longest_document"`

	// ByteCounts is how often each byte value occurs in the text: 256 numbers, or none if another
	// program wrote the shards without them.
	ByteCounts []int64 `json:"byte_counts,omitempty"`

	Shards []Shard `json:"shards"`
}

// Shard is one Parquet file of a split.
type Shard struct {
	File   string `json:"file"` // its name in the folder
	Size   int64  `json:"size"` // in bytes
	XXH3   string `json:"xxh3"` // 64-bit XXH3 of the file's bytes, 16 hexadecimal digits
	Rows   int64  `json:"rows"`
	Tokens int64  `json:"tokens"`
	Bytes  int64  `json:"bytes"` // of text
}

// Split returns the counts of one split.
func (m Manifest) Split(s Split) SplitInfo {
	if s == Validation {
		return m.Validation
	}
	return m.Train
}

// Fingerprint identifies the tokens of all shards: runs with the same fingerprint, seq_len and seed
// see the same batches.
func (m Manifest) Fingerprint() string {
	var sums strings.Builder
	for _, split := range []SplitInfo{m.Train, m.Validation} {
		for _, s := range split.Shards {
			sums.WriteString(s.XXH3)
		}
		sums.WriteByte('/')
	}
	return checksum([]byte(sums.String()))
}

// UnigramBitsPerByte is the cross-entropy of the validation split's bytes under the frequencies of
// single bytes in the training split, with one added to each count, in bits per byte: what a model
// must beat to have learned any context. ok is false if the split or the counts are missing.
func (m Manifest) UnigramBitsPerByte() (bits float64, ok bool) {
	if m.Validation.Bytes == 0 || m.Train.ByteCounts == nil || m.Validation.ByteCounts == nil {
		return 0, false
	}
	var trained, total float64
	for b := range 256 {
		trained += float64(m.Train.ByteCounts[b]) + 1
		total += float64(m.Validation.ByteCounts[b])
	}
	for b, n := range m.Validation.ByteCounts {
		if n > 0 {
			bits -= float64(n) / total * math.Log2((float64(m.Train.ByteCounts[b])+1)/trained)
		}
	}
	return bits, true
}

// whereIs names a folder that is not there. A relative path is that of a recipe which may have been
// written for another working directory.
func whereIs(dir string) string {
	if at, err := os.Getwd(); err == nil && !filepath.IsAbs(dir) {
		return fmt.Sprintf("%s, seen from %s", dir, at)
	}
	return dir
}

// ReadManifest reads the manifest of a folder of shards.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, manifestName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("data.shards: no %s in %s: run `sambatrain data prepare` first, or choose another folder", manifestName, whereIs(dir))
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %w", err)
	}
	m, err := parseManifest(raw)
	if err != nil {
		return Manifest{}, fmt.Errorf("data.shards: %s: %w: %s", path, err, remedy)
	}
	return m, nil
}

func parseManifest(raw []byte) (Manifest, error) {
	// The version comes first: another version may have other fields.
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return Manifest{}, badJSON(err)
	}
	if version.Format != formatVersion {
		return Manifest{}, fmt.Errorf("format is %d, this program reads format %d", version.Format, formatVersion)
	}
	var m Manifest
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return Manifest{}, badJSON(err)
	}
	return m, m.validate()
}

// validate checks everything that can be checked without the shards.
func (m Manifest) validate() error {
	t := m.Tokenizer
	if t.VocabSize < 1 || t.VocabSize > math.MaxInt32 || t.EOS < 0 || int(t.EOS) >= t.VocabSize {
		return fmt.Errorf("tokenizer: vocab_size %d with eos_id %d is invalid", t.VocabSize, t.EOS)
	}
	seen := map[string]bool{}
	for _, name := range []Split{Train, Validation} {
		split := m.Split(name)
		if n := len(split.ByteCounts); n != 0 && n != 256 {
			return fmt.Errorf("%s: byte_counts has %d numbers, want 256", name, n)
		}
		for b, n := range split.ByteCounts {
			if n < 0 {
				return fmt.Errorf("%s: byte_counts[%d] is %d", name, b, n)
			}
		}
		if split.Documents < 0 || split.LongestDocument < 0 || split.LongestDocument > split.Tokens {
			return fmt.Errorf("%s: documents %d with longest_document %d is invalid", name, split.Documents, split.LongestDocument)
		}
		tokens, text := split.Tokens, split.Bytes
		for _, s := range split.Shards {
			if s.File == "" || s.File != filepath.Base(s.File) || !filepath.IsLocal(s.File) || strings.ContainsAny(s.File, `/\`) {
				return fmt.Errorf("%s: shard %q is not the name of a file in this folder", name, s.File)
			}
			if seen[s.File] {
				return fmt.Errorf("%s: shard %s is listed twice", name, s.File)
			}
			seen[s.File] = true
			if s.Size < 1 || s.Rows < 1 || s.Tokens < s.Rows || s.Bytes < 0 {
				return fmt.Errorf("%s: shard %s: size %d, rows %d, tokens %d, bytes %d is invalid", name, s.File, s.Size, s.Rows, s.Tokens, s.Bytes)
			}
			if sum, err := hex.DecodeString(s.XXH3); err != nil || len(sum) != 8 {
				return fmt.Errorf("%s: shard %s: xxh3 is %q, want 16 hexadecimal digits", name, s.File, s.XXH3)
			}
			// Counting down from the total cannot overflow: every part is checked to be within the
			// rest.
			if s.Tokens > tokens || s.Bytes > text {
				return fmt.Errorf("%s: the shards hold more than tokens %d, bytes %d", name, split.Tokens, split.Bytes)
			}
			tokens -= s.Tokens
			text -= s.Bytes
		}
		if tokens != 0 || text != 0 {
			return fmt.Errorf("%s: the shards do not add up to tokens %d, bytes %d", name, split.Tokens, split.Bytes)
		}
	}
	return nil
}

// checksum is the 64-bit XXH3 of b, as in Shard.XXH3.
func checksum(b []byte) string { return fmt.Sprintf("%016x", xxh3.Hash(b)) }
