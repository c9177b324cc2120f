//go:build linux

package cuda

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
	"github.com/gofrs/flock"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/wholefile"
)

const (
	candidates = 8 // algorithms of a product that are timed
	// A candidate's time is the median of timings, each of timedRuns in a row.
	timings, timedRuns = 3, 3
	// minGain is how much faster than the library's first choice another must be.
	minGain = 0.02
)

// tuner chooses the algorithms of matrix products by timing them. What was chosen is kept
// in the kernel cache, for all programs of this user, and with the run, whose choices hold
// for as long as it lives: an algorithm's order of additions is its own.
type tuner struct {
	machine string // the device and cublasLt's version: choices hold for these alone
	run     string // the run's file, "" for none
	own     choices

	timed, known int // products: those that were timed, and those that had been before
	took         time.Duration
}

// choices are algorithms as hexadecimal bytes, by machine and product.
type choices map[string]map[string]string

// TuneProducts makes programs that are loaded from now on take the fastest of the first
// algorithms that cublasLt proposes for each matrix product. run is the file in which a
// run's choices are kept, "" for none. Other machines for which it has choices, where it has
// none for this one, are returned.
func (d *Device) TuneProducts(run string) (others []string, err error) {
	version, _, _ := purego.SyscallN(d.blas.version)
	t := &tuner{machine: fmt.Sprintf("%s, cublasLt %d", d.name, version), run: run, own: choices{}}
	if run != "" {
		if t.own, err = readChoices(run); err != nil {
			return nil, err
		}
	}
	if len(t.own) > 0 && t.own[t.machine] == nil {
		others = slices.Sorted(maps.Keys(t.own))
	}
	d.tuner = t
	return others, nil
}

// Tuned says how many products programs have needed since TuneProducts for which the run had no
// choice: those that were timed, and how long that took, and those that another program of this
// user had timed before.
func (d *Device) Tuned() (timed, known int, took time.Duration) {
	if d.tuner == nil {
		return 0, 0, 0
	}
	return d.tuner.timed, d.tuner.known, d.tuner.took
}

func readChoices(path string) (choices, error) {
	c := choices{}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: %s, the chosen algorithms of products: %w; remove it to have them chosen again", path, err)
	}
	return c, nil
}

func (c choices) write(path string) error {
	text, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	if err := wholefile.Write(path, text); err != nil {
		return fmt.Errorf("cuda: %w", err)
	}
	return nil
}

func (c choices) set(machine, product, algorithm string) {
	if c[machine] == nil {
		c[machine] = map[string]string{}
	}
	c[machine][product] = algorithm
}

// productKey is all that an algorithm depends on.
func productKey(p *graph.Product, tf32 bool) string {
	transposed := map[bool]string{false: "n", true: "t"}
	factors := map[bool]string{true: " in tf32"}
	return fmt.Sprintf("%dx%dx%d %s%s %s*%s+%g=%s rows %d,%d,%d,%d at %d,%d,%d,%d%s", p.M, p.N, p.K, transposed[p.TransA], transposed[p.TransB],
		p.TypeA.CType(), p.TypeB.CType(), p.Beta, p.TypeC.CType(), p.LDA, p.LDB, p.LDC, p.LDFrom,
		alignmentOf(p.A), alignmentOf(p.B), alignmentOf(p.C), alignmentOf(p.From), factors[tf32])
}

// choose gives m one of the algorithms found for it.
func (d *Device) choose(m *product, found []heuristicResult) error {
	t, key := d.tuner, productKey(&m.of, d.tf32)
	if algorithm, ok := t.own[t.machine][key]; ok {
		return m.take(algorithm)
	}
	timed := t.timed
	algorithm, err := d.cached(key, func() (string, error) { return d.fastest(m, found) })
	if err != nil {
		return err
	}
	if t.timed == timed {
		t.known++
	}
	t.own.set(t.machine, key, algorithm)
	if t.run != "" {
		if err := t.own.write(t.run); err != nil {
			return err
		}
	}
	return m.take(algorithm)
}

// cached is the choice in the kernel cache, or what find returns. Two processes don't time
// the same product: the second one waits.
func (d *Device) cached(key string, find func() (string, error)) (string, error) {
	dir, err := cacheFolder()
	if err != nil {
		return "", err
	}
	if dir == "" {
		return find()
	}
	path := filepath.Join(dir, "products.json")
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return "", cacheError(err)
	}
	defer lock.Unlock()
	all, err := readChoices(path)
	if err != nil {
		return "", err
	}
	if algorithm, ok := all[d.tuner.machine][key]; ok {
		return algorithm, nil
	}
	algorithm, err := find()
	if err != nil {
		return "", err
	}
	all.set(d.tuner.machine, key, algorithm)
	return algorithm, all.write(path)
}

// fastest times a product's algorithms, in turns, on what its operands hold.
func (d *Device) fastest(m *product, found []heuristicResult) (string, error) {
	started := time.Now()
	var events [2]uintptr
	for i := range events {
		if err := d.driver.call("cuEventCreate", d.driver.eventCreate, uintptr(unsafe.Pointer(&events[i])), 0); err != nil {
			return "", err
		}
		defer d.driver.call("cuEventDestroy", d.driver.eventDestroy, events[i])
	}
	times := make([][]float32, len(found))
	for round := range timings + 1 { // the first one warms up
		for i, r := range found {
			if r.state != 0 {
				continue
			}
			m.algorithm = r.algorithm
			ms, err := d.time(m, events)
			if err != nil {
				return "", err
			}
			if round > 0 {
				times[i] = append(times[i], ms)
			}
		}
	}
	d.tuner.timed++
	d.tuner.took += time.Since(started)
	fastest := found[shortest(times)].algorithm
	return hex.EncodeToString(algorithmBytes(&fastest)), nil
}

// shortest is which of several lists has the least median, 0 unless another's is less by
// minGain. Empty ones don't count.
func shortest(times [][]float32) int {
	best, least := 0, float32(0)
	for i, list := range times {
		if len(list) == 0 {
			continue
		}
		slices.Sort(list)
		median := list[len(list)/2]
		if i == 0 {
			least = median * (1 - minGain)
		} else if median < least {
			best, least = i, median
		}
	}
	return best
}

// time is the milliseconds of timedRuns products.
func (d *Device) time(m *product, events [2]uintptr) (float32, error) {
	drv := d.driver
	if err := drv.call("cuEventRecord", drv.eventRecord, events[0], d.stream); err != nil {
		return 0, err
	}
	for range timedRuns {
		if err := m.enqueue(d.stream); err != nil {
			return 0, err
		}
	}
	if err := drv.call("cuEventRecord", drv.eventRecord, events[1], d.stream); err != nil {
		return 0, err
	}
	if err := d.synchronize(); err != nil {
		return 0, err
	}
	var ms float32
	return ms, drv.call("cuEventElapsedTime", drv.eventElapsed, uintptr(unsafe.Pointer(&ms)), events[0], events[1])
}

func algorithmBytes(a *[8]uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a))
}

// take gives the product an algorithm that was chosen before.
func (m *product) take(algorithm string) error {
	raw, err := hex.DecodeString(algorithm)
	if err != nil || len(raw) != int(unsafe.Sizeof(m.algorithm)) {
		return fmt.Errorf("cuda: %q is no algorithm of a product; remove products.json from the kernel cache and the run directory", algorithm)
	}
	copy(algorithmBytes(&m.algorithm), raw)
	var checked heuristicResult
	b := m.d.blas
	if err := b.call("cublasLtMatmulAlgoCheck", b.check, m.d.lt, m.desc, m.b, m.a, m.z, m.c,
		uintptr(unsafe.Pointer(&m.algorithm)), uintptr(unsafe.Pointer(&checked))); err != nil {
		return fmt.Errorf("%w: an algorithm that was chosen before doesn't suit; remove products.json from the kernel cache and the run directory", err)
	}
	return nil
}
