//go:build linux

package cuda

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	candidates = 8 // algorithms that are considered for a product
	// A candidate's time is the median of `timings` timings, each of timedRuns consecutive runs.
	timings, timedRuns = 3, 3
	// minGain is how much faster than the library's first choice another algorithm must be.
	minGain = 0.02
	// minTuned is the number of multiply-adds from which a product is timed: a tenth of a
	// millisecond.
	minTuned = 1 << 35
)

// tuner chooses the algorithms of large matrix products by timing them, among those with the same
// bits as the library's first choice. Choices are stored in the kernel cache, for all programs of
// this user.
type tuner struct {
	machine string // the device and cublasLt's version, for which choices are valid
	least   int    // multiply-adds from which a product is timed

	timed, known int // number of products that were timed, and that had been timed before
	took         time.Duration
}

// TuneProducts makes programs that are loaded afterwards use, for each large product of bfloat16,
// the fastest of the algorithms that cublasLt proposes among those with the same bits.
func (d *Device) TuneProducts() {
	version, _, _ := purego.SyscallN(d.blas.version)
	d.tuner = &tuner{machine: fmt.Sprintf("%s, cublasLt %d", d.name, version), least: minTuned}
}

// Tuned returns the number of large products that programs have needed since TuneProducts: those
// that were timed, and how long that took, and those that another program of this user had timed
// before.
func (d *Device) Tuned() (timed, known int, took time.Duration) {
	if d.tuner == nil {
		return 0, 0, 0
	}
	return d.tuner.timed, d.tuner.known, d.tuner.took
}

// algorithm is cublasLtMatmulAlgo_t, which may be stored and reused with the same library.
type algorithm [8]uint64

func (a algorithm) MarshalText() ([]byte, error) {
	return []byte(hex.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a)))), nil
}

func (a *algorithm) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err == nil && len(raw) != int(unsafe.Sizeof(*a)) {
		err = fmt.Errorf("%d bytes are no algorithm", len(raw))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a)), raw)
	return err
}

// order is what determines the order of an algorithm's additions: its family of kernels, the depth
// of a stage and of the instruction, the number of split-K parts, and how these are summed.
type order struct {
	family, stages, parts, reduction uint32
	instruction                      uint16
}

// hopperFamily are cublasLt's kernels for compute capability 9.0. Those with equal order differ
// only in tiles, clusters and the order of tiles, which change no bit (docs/adr/0004). For other
// families this is not known.
const hopperFamily = 66

// order is an algorithm's order; for other families than hopperFamily it contains only the family.
func (b *blas) order(a *algorithm) (o order, err error) {
	const family, parts, reduction, stages, instruction = 0, 2, 3, 6, 7 // of cublasLtMatmulAlgoConfigAttributes_t
	get := func(attribute uintptr, to unsafe.Pointer, bytes uintptr) {
		var written uint64
		if err == nil {
			err = b.call("cublasLtMatmulAlgoConfigGetAttribute", b.config, uintptr(unsafe.Pointer(a)), attribute, uintptr(to), bytes, uintptr(unsafe.Pointer(&written)))
		}
	}
	if get(family, unsafe.Pointer(&o.family), 4); o.family != hopperFamily {
		return o, err
	}
	for attribute, to := range map[uintptr]*uint32{parts: &o.parts, reduction: &o.reduction, stages: &o.stages} {
		get(attribute, unsafe.Pointer(to), 4)
	}
	get(instruction, unsafe.Pointer(&o.instruction), 2)
	return o, err
}

// alike are a product's algorithm and the others that the library proposes for it and that give the
// same bits.
func (m *product) alike() ([]algorithm, error) {
	list, b := []algorithm{m.algorithm}, m.d.blas
	own, err := b.order(&m.algorithm)
	if err != nil || own.family != hopperFamily {
		return list, err
	}
	found, err := m.proposals(candidates)
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		if r.state != 0 || r.algorithm == m.algorithm {
			continue
		}
		switch o, err := b.order(&r.algorithm); {
		case err != nil:
			return nil, err
		case o == own:
			list = append(list, r.algorithm)
		}
	}
	return list, nil
}

// choices are algorithms by machine and product.
type choices map[string]map[string]algorithm

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
		return cacheError(err)
	}
	return nil
}

func (c choices) set(machine, product string, a algorithm) {
	if c[machine] == nil {
		c[machine] = map[string]algorithm{}
	}
	c[machine][product] = a
}

// productKey is everything that an algorithm depends on.
func productKey(p *graph.Product) string {
	transposed := map[bool]string{false: "n", true: "t"}
	return fmt.Sprintf("%dx%dx%d %s%s %s*%s+%g=%s rows %d,%d,%d,%d at %d,%d,%d,%d", p.M, p.N, p.K, transposed[p.TransA], transposed[p.TransB],
		p.TypeA.CType(), p.TypeB.CType(), p.Beta, p.TypeC.CType(), p.LDA, p.LDB, p.LDC, p.LDFrom,
		alignmentOf(p.A), alignmentOf(p.B), alignmentOf(p.C), alignmentOf(p.From))
}

// tune selects the fastest algorithm with the same bits for a large product of bfloat16.
func (d *Device) tune(m *product) error {
	p, t := &m.of, d.tuner
	if p.M*p.N*p.K < t.least || p.TypeA != graph.BFloat16 || p.TypeB != graph.BFloat16 {
		return nil
	}
	list, err := m.alike()
	if err != nil || len(list) == 1 {
		return err
	}
	timed := t.timed
	m.algorithm, err = t.cached(productKey(p), list, func() (algorithm, error) { return d.fastest(m, list) })
	if t.timed == timed {
		t.known++
	}
	return err
}

// cached is the choice in the kernel cache, if it is in list, and otherwise what find returns. Two
// processes don't time the same product concurrently: the second one waits.
func (t *tuner) cached(key string, list []algorithm, find func() (algorithm, error)) (a algorithm, err error) {
	dir, err := cacheFolder()
	if err != nil {
		return a, err
	}
	if dir == "" {
		return find()
	}
	path := filepath.Join(dir, "products.json")
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return a, cacheError(err)
	}
	defer lock.Unlock()
	all, err := readChoices(path)
	if err != nil {
		return a, err
	}
	if a, ok := all[t.machine][key]; ok && slices.Contains(list, a) {
		return a, nil
	}
	if a, err = find(); err != nil {
		return a, err
	}
	all.set(t.machine, key, a)
	return a, all.write(path)
}

// fastest times a product's algorithms, in turns, on the current contents of its operands.
func (d *Device) fastest(m *product, list []algorithm) (algorithm, error) {
	started := time.Now()
	var events [2]uintptr
	for i := range events {
		if err := d.driver.call("cuEventCreate", d.driver.eventCreate, uintptr(unsafe.Pointer(&events[i])), 0); err != nil {
			return algorithm{}, err
		}
		defer d.driver.call("cuEventDestroy", d.driver.eventDestroy, events[i])
	}
	times := make([][]float32, len(list))
	for round := range timings + 1 { // the first one warms up
		for i, a := range list {
			m.algorithm = a
			ms, err := d.time(m, events)
			if err != nil {
				return algorithm{}, err
			}
			if round > 0 {
				times[i] = append(times[i], ms)
			}
		}
	}
	d.tuner.timed++
	d.tuner.took += time.Since(started)
	return list[shortest(times)], nil
}

// shortest is the index of the list with the smallest median; 0 unless another is smaller by
// minGain.
func shortest(times [][]float32) int {
	best, least := 0, float32(0)
	for i, list := range times {
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

// time is the duration of timedRuns products in milliseconds.
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
