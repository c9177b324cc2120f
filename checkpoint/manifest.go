package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// RecipeFile is the file of a checkpoint that has the resolved recipe.
const RecipeFile = "recipe.yaml"

// The other files of a checkpoint.
const (
	modelFile       = "model.safetensors"
	optimizerFile   = "optimizer.safetensors"
	manifestFile    = "manifest.json"
	manifestSumFile = "manifest.json.sha256"
)

// The parts of a checkpoint that its files belong to.
const (
	partModel     = "model"
	partOptimizer = "optimizer"
	partRecipe    = "recipe"
)

const (
	manifestFormat = "sambatrain-checkpoint"
	wholeVersion   = 1 // each tensor is in one file
	piecesVersion  = 2 // some are in pieces, which the manifest describes

	// maxManifest limits what is read of a manifest, which may be anything.
	maxManifest = 16 << 20
)

// manifest is manifest.json.
type manifest struct {
	Format        string                     `json:"format"`
	FormatVersion int                        `json:"format_version"`
	Step          int64                      `json:"step"`
	Tokens        int64                      `json:"tokens"`
	Position      int64                      `json:"position"`
	CodeVersion   string                     `json:"code_version"`
	SavedAt       time.Time                  `json:"saved_at"`
	RecipeSHA256  string                     `json:"recipe_sha256"`
	Files         []fileRecord               `json:"files"`
	Pieces        map[string][]int           `json:"pieces,omitempty"` // shapes of the tensors that are in pieces
	State         map[string]json.RawMessage `json:"state"`
}

// fileRecord is what a manifest says about one file next to it.
type fileRecord struct {
	Name   string `json:"name"`
	Part   string `json:"part"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// RecipeSHA256 returns the checksum of a resolved recipe's text, in the form that State expects.
func RecipeSHA256(resolved []byte) string {
	sum := sha256.Sum256(resolved)
	return hex.EncodeToString(sum[:])
}

func newManifest(s State, savedAt time.Time, files []fileRecord, pieces map[string][]int) manifest {
	version := wholeVersion
	if len(pieces) > 0 {
		version = piecesVersion
	}
	state := s.Extra
	if state == nil {
		state = map[string]json.RawMessage{}
	}
	return manifest{
		Format: manifestFormat, FormatVersion: version,
		Step: s.Step, Tokens: s.Tokens, Position: s.Position,
		CodeVersion: s.CodeVersion, SavedAt: savedAt.UTC(), RecipeSHA256: s.RecipeSHA256,
		Files: files, Pieces: pieces, State: state,
	}
}

func (m manifest) state() State {
	return State{
		Step: m.Step, Tokens: m.Tokens, Position: m.Position,
		CodeVersion: m.CodeVersion, RecipeSHA256: m.RecipeSHA256, Extra: maps.Clone(m.State),
	}
}

// encode returns manifest.json and the line for manifest.json.sha256.
func (m manifest) encode() (text []byte, sumLine string, err error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, "", fmt.Errorf("state: %w", err)
	}
	if b.Len() > maxManifest {
		return nil, "", fmt.Errorf("state: the manifest would take %d bytes, the limit is %d", b.Len(), maxManifest)
	}
	return b.Bytes(), manifestSumLine(b.Bytes()), nil
}

// manifestSumLine returns the checksum of a manifest in the format of sha256sum.
func manifestSumLine(text []byte) string {
	return fmt.Sprintf("%x  %s\n", sha256.Sum256(text), manifestFile)
}

// parseManifest decodes and checks the text of a manifest.
func parseManifest(text []byte) (manifest, error) {
	var version struct {
		Format        string `json:"format"`
		FormatVersion int    `json:"format_version"`
	}
	// The version is read first, so that a later format is reported as such and not as an unknown
	// field.
	if err := json.Unmarshal(text, &version); err != nil {
		return manifest{}, err
	}
	if version.Format != manifestFormat {
		return manifest{}, fmt.Errorf("format is %q, want %q", version.Format, manifestFormat)
	}
	if v := version.FormatVersion; v != wholeVersion && v != piecesVersion {
		return manifest{}, fmt.Errorf("format_version is %d, this program reads %d and %d", v, wholeVersion, piecesVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var m manifest
	if err := dec.Decode(&m); err != nil {
		return manifest{}, err
	}
	for k, v := range m.State {
		// Indenting the manifest also indented these; restore their compact form.
		var b bytes.Buffer
		if err := json.Compact(&b, v); err != nil {
			return manifest{}, fmt.Errorf("state.%s: %w", k, err)
		}
		m.State[k] = b.Bytes()
	}
	return m, m.check()
}

func (m manifest) check() error {
	if err := m.state().check(); err != nil {
		return err
	}
	parts := map[string]bool{}
	names := map[string]bool{}
	for _, f := range m.Files {
		// A name that leads out of the folder would make the reader open whatever it points to.
		if !isFileName(f.Name) || f.Name == manifestFile || f.Name == manifestSumFile {
			return fmt.Errorf("files: %q is not a file name allowed here", f.Name)
		}
		if names[f.Name] {
			return fmt.Errorf("files: %q is listed twice", f.Name)
		}
		names[f.Name] = true
		if f.Part != partModel && f.Part != partOptimizer && f.Part != partRecipe {
			return fmt.Errorf("files: %s: unknown part %q", f.Name, f.Part)
		}
		parts[f.Part] = true
		if f.Size < 0 {
			return fmt.Errorf("files: %s: negative size %d", f.Name, f.Size)
		}
		if !isSHA256(f.SHA256) {
			return fmt.Errorf("files: %s: %q is not a SHA-256 in lower-case hexadecimal", f.Name, f.SHA256)
		}
	}
	if (m.FormatVersion == piecesVersion) != (len(m.Pieces) > 0) {
		return fmt.Errorf("pieces: %d tensors lie in pieces, which is not version %d", len(m.Pieces), m.FormatVersion)
	}
	for name, shape := range m.Pieces {
		if err := checkShape(shape); err != nil {
			return fmt.Errorf("pieces: tensor %q: %w", name, err)
		}
	}
	for _, part := range []string{partModel, partOptimizer} {
		if !parts[part] {
			return fmt.Errorf("files: none holds the %s", part)
		}
	}
	return nil
}

// isFileName distinguishes a plain file name from a path that leads elsewhere.
func isFileName(name string) bool {
	return name != "." && name == filepath.Base(name) && filepath.IsLocal(name)
}

func (s State) check() error {
	for _, v := range []struct {
		key   string
		value int64
	}{{"step", s.Step}, {"tokens", s.Tokens}, {"position", s.Position}} {
		if v.value < 0 {
			return fmt.Errorf("%s: %d is negative", v.key, v.value)
		}
	}
	if !isSHA256(s.RecipeSHA256) {
		return fmt.Errorf("recipe_sha256: %q is not a SHA-256 in lower-case hexadecimal", s.RecipeSHA256)
	}
	return nil
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// readManifest reads dir's manifest and compares it with its checksum.
func readManifest(w Watch, dir string) (manifest, error) {
	defer w.reads("the manifest of " + dir)()
	path, sumPath := filepath.Join(dir, manifestFile), filepath.Join(dir, manifestSumFile)
	text, err := readSmall(path, maxManifest)
	if err != nil {
		return manifest{}, err
	}
	line, err := readSmall(sumPath, 1<<10)
	if err != nil {
		return manifest{}, err
	}
	if string(line) != manifestSumLine(text) {
		return manifest{}, fmt.Errorf("%s: does not match the SHA-256 in %s; one of the two is corrupt", path, sumPath)
	}
	m, err := parseManifest(text)
	if err != nil {
		return manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	if step, ok := parseStep(filepath.Base(dir)); ok && step != m.Step {
		return manifest{}, fmt.Errorf("%s: step is %d, the folder's name says %d", path, m.Step, step)
	}
	return m, nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: longer than %d bytes; not a file of a checkpoint", path, limit)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s: is empty", path)
	}
	return b, nil
}
