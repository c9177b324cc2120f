// Package checkpoint saves a training run's state so that a kill, a full disk or a flipped bit at any moment loses no
// more than the steps since the last good save, and exports models for other programs.
//
// A run directory is written by one process at a time, the one that holds its Lock:
//
//	run, err := checkpoint.Lock("runs/x")
//	defer run.Unlock()
//	newest, skipped, err := checkpoint.Newest("runs/x") // to resume
//	err = newest.Read(model, optimizer)
//	info, err := run.Save(state, model, optimizer)
//	removed, err := run.Prune(cfg.KeepLast, cfg.KeepEvery)
//
// With several processes, the one with the lock calls Begin, each of them WriteShare, and the first one Finish with
// their results. Reading a checkpoint does not depend on the number of processes that wrote it.
//
// List, Verify, Load and Newest only read and need no lock. FORMAT.md describes the files.
package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Names of AdamW's moments in optimizer.safetensors: a prefix before the parameter's name.
const (
	ExpAvgPrefix   = "exp_avg."
	ExpAvgSqPrefix = "exp_avg_sq."
)

// Tensor names a view into the trainer's own buffers. Data is row-major and is neither copied nor
// retained.
type Tensor struct {
	Name  string
	Shape []int // empty for a scalar
	Data  []float32
	// From is the position of Data among the tensor's elements, for WriteShare. Elsewhere Data is
	// the whole tensor.
	From int
}

// State is what a resumed run needs besides its tensors.
type State struct {
	Step         int64  // optimizer steps completed
	Tokens       int64  // tokens trained on so far
	Position     int64  // index of the next training sample
	CodeVersion  string // version of the program that saves
	RecipeSHA256 string // of the resolved recipe, from RecipeSHA256

	// Recipe is the text of the resolved recipe, which Save stores next to the tensors; nil stores
	// none. Load leaves it nil; ReadRecipe reads it.
	Recipe []byte

	// Extra holds anything else that the trainer needs to restore, such as the position of a
	// schedule or a metrics file. Each value is a JSON document.
	Extra map[string]json.RawMessage
}

// Checkpoint is a checkpoint folder whose files were verified when it was loaded.
type Checkpoint struct {
	Dir string
	State
	SavedAt time.Time

	files  []fileRecord
	pieces map[string][]int
	watch  Watch
}

// Load verifies the checkpoint folder dir and opens it.
func Load(dir string) (*Checkpoint, error) { return Opener{}.Load(dir) }

// Describe opens the checkpoint folder dir by its manifest, which is compared with its checksum.
// The tensors are not read, so they may be damaged.
func Describe(dir string) (*Checkpoint, error) { return Opener{}.Describe(dir) }

// Read fills the Data of every tensor in place, bit for bit as it was saved. The names and shapes
// must be exactly those of the checkpoint: a missing, additional or differently shaped tensor is an
// error that names it, and is detected before any Data is modified.
func (c *Checkpoint) Read(model, optimizer []Tensor) error {
	return c.readAll(map[string][]Tensor{partModel: model, partOptimizer: optimizer})
}

// ReadModel is Read for the parameters only, for uses that do not continue training.
func (c *Checkpoint) ReadModel(model []Tensor) error {
	return c.readAll(map[string][]Tensor{partModel: model})
}

func (c *Checkpoint) readAll(want map[string][]Tensor) error {
	for _, list := range want {
		for _, t := range list {
			if err := t.check(); err != nil {
				return err
			}
		}
	}
	return c.read(want, func(p *Tensors, list []Tensor) error {
		for _, t := range list {
			if err := c.readWatched(t.Name, func() error { return p.ReadFloat32(t.Name, t.Data) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReadEach is Read for callers that don't have room for everything, or want only parts: visit is
// called for one tensor after the other, whose Data are not used, and reads what it wants of it,
// starting at any element. Without optimizer only the parameters are visited.
func (c *Checkpoint) ReadEach(model, optimizer []Tensor, visit func(t Tensor, read func(from int, dst []float32) error) error) error {
	want := map[string][]Tensor{partModel: model}
	if optimizer != nil {
		want[partOptimizer] = optimizer
	}
	return c.read(want, func(p *Tensors, list []Tensor) error {
		for _, t := range list {
			read := func(from int, dst []float32) error {
				return c.readWatched(t.Name, func() error { return p.ReadRange(t.Name, from, dst) })
			}
			if err := visit(t, read); err != nil {
				return err
			}
		}
		return nil
	})
}

// readWatched watches f, which reads from a tensor.
func (c *Checkpoint) readWatched(tensor string, f func() error) error {
	defer c.watch.reads(tensor + " of " + c.Dir)()
	return f()
}

// read opens the parts wanted, compares all of them with what is wanted, and then reads each.
func (c *Checkpoint) read(want map[string][]Tensor, read func(*Tensors, []Tensor) error) error {
	var open []*Tensors
	for _, part := range []string{partModel, partOptimizer} {
		if _, ok := want[part]; !ok {
			continue
		}
		p, err := c.open(part)
		if err != nil {
			return err
		}
		defer p.Close()
		if err := p.Match(want[part]); err != nil {
			return err
		}
		open = append(open, p)
	}
	for _, p := range open {
		if err := read(p, want[p.part]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) open(part string) (*Tensors, error) {
	return openTensors(c.watch, c.Dir, part, c.files, c.pieces)
}

// ReadRecipe returns the text of the run's resolved recipe, compared with its checksum, or nil if
// the checkpoint has none.
func (c *Checkpoint) ReadRecipe() ([]byte, error) {
	for _, r := range c.files {
		if r.Part != partRecipe {
			continue
		}
		path := filepath.Join(c.Dir, r.Name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return text, r.compare(path, RecipeSHA256(text))
	}
	return nil, nil
}

// OpenModel opens the parameters for reading one at a time.
func (c *Checkpoint) OpenModel() (*Tensors, error) { return c.open(partModel) }

// check compares the tensor's shape with its data, which must be all of it.
func (t Tensor) check() error {
	if err := t.checkPiece(); err != nil {
		return err
	}
	if n := elements(t.Shape); t.From != 0 || n != len(t.Data) {
		return fmt.Errorf("tensor %q: shape %v has %d elements, its data %d", t.Name, t.Shape, n, len(t.Data))
	}
	return nil
}

// checkPiece compares the tensor's shape with its data, which may be a piece.
func (t Tensor) checkPiece() error {
	if err := checkShape(t.Shape); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if n := elements(t.Shape); t.From < 0 || t.From+len(t.Data) > n {
		return fmt.Errorf("tensor %q: shape %v has %d elements, its data is %d from %d", t.Name, t.Shape, n, len(t.Data), t.From)
	}
	return nil
}

func checkShape(shape []int) error {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return fmt.Errorf("shape %v has a negative dimension", shape)
		}
		// Also if another dimension is zero, since whoever reads the tensor multiplies the others.
		hi, lo := bits.Mul64(n, uint64(max(d, 1)))
		if hi != 0 || lo > math.MaxInt64/4 {
			return fmt.Errorf("shape %v overflows", shape)
		}
		n = lo
	}
	return nil
}

// Info is a checkpoint folder as found, not verified.
type Info struct {
	Dir   string
	Step  int64
	Bytes int64 // of all its files
}

// Folder names inside RUN/checkpoints. Names that start with a dot are unfinished work of a writer,
// which only the holder of the run's lock may touch.
const (
	checkpointsDir = "checkpoints"
	stepPrefix     = "step-"

	savingPrefix   = ".saving-"   // being written: incomplete, removed when found
	replacedPrefix = ".replaced-" // the good checkpoint of the same step, until the new one is in place
	removingPrefix = ".removing-" // being removed
)

// stepName returns the folder name of a step; eight digits keep a plain listing in order.
func stepName(step int64) string { return fmt.Sprintf("%s%08d", stepPrefix, step) }

// parseStep inverts stepName and refuses any other spelling.
func parseStep(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, stepPrefix)
	if !ok {
		return 0, false
	}
	step, err := strconv.ParseInt(digits, 10, 64)
	return step, err == nil && step >= 0 && stepName(step) == name
}
