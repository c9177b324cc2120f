//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// Constants of cublasLt.h and library_types.h.
const (
	computeFloat32      = 68
	computeTF32         = 77
	typeFloat32         = 0
	typeBFloat16        = 14
	descTransA          = 3
	descTransB          = 4
	prefMaxWorkspace    = 1
	prefMinAlignA       = 5 // B, C and D follow
	transpose           = 1
	workspaceBytes      = 32 << 20
	alignmentConsidered = 256
)

// blas is the functions of cublasLt that this package uses.
type blas struct {
	lib *dylib.Library

	create, destroy, descCreate, descSet, descDestroy uintptr
	layoutCreate, layoutDestroy                       uintptr
	prefCreate, prefSet, prefDestroy                  uintptr
	heuristic, config, matmul, version                uintptr
}

var openBLAS = sync.OnceValues(func() (*blas, error) {
	lib, err := dylib.Open(librariesHere("libcublasLt.so")...)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	b := &blas{lib: lib}
	err = lib.Symbols(map[*uintptr]string{
		&b.create: "cublasLtCreate", &b.destroy: "cublasLtDestroy", &b.version: "cublasLtGetVersion",
		&b.descCreate: "cublasLtMatmulDescCreate", &b.descSet: "cublasLtMatmulDescSetAttribute", &b.descDestroy: "cublasLtMatmulDescDestroy",
		&b.layoutCreate: "cublasLtMatrixLayoutCreate", &b.layoutDestroy: "cublasLtMatrixLayoutDestroy",
		&b.prefCreate: "cublasLtMatmulPreferenceCreate", &b.prefSet: "cublasLtMatmulPreferenceSetAttribute", &b.prefDestroy: "cublasLtMatmulPreferenceDestroy",
		&b.heuristic: "cublasLtMatmulAlgoGetHeuristic", &b.config: "cublasLtMatmulAlgoConfigGetAttribute", &b.matmul: "cublasLtMatmul",
	})
	return b, err
})

//go:uintptrescapes
func (b *blas) call(name string, f uintptr, args ...uintptr) error {
	if r, _, _ := purego.SyscallN(f, args...); int32(r) != 0 {
		return fmt.Errorf("cuda: %s: status %d", name, int32(r))
	}
	return nil
}

// heuristicResult is cublasLtMatmulHeuristicResult_t.
type heuristicResult struct {
	algorithm algorithm
	workspace uint64
	state     int32
	waves     float32
	reserved  [4]int32
}

// product is a matrix product and its algorithm. cublasLt is column-major, so that our C is its
// transpose: C' = op(B)' op(A)', and A and B are swapped.
type product struct {
	d           *Device
	of          graph.Product
	desc        uintptr
	a, b, c, z  uintptr // layouts of A, B, C and From
	alpha, beta float32
	algorithm   algorithm
}

func dataType(t graph.DType) (uintptr, error) {
	switch t {
	case graph.Float32:
		return typeFloat32, nil
	case graph.BFloat16:
		return typeBFloat16, nil
	}
	return 0, fmt.Errorf("cuda: no matrix product of %v", t)
}

// alignmentOf is the largest power of two that divides an address.
func alignmentOf(address uint64) uint32 {
	a := uint64(alignmentConsidered)
	for address%a != 0 {
		a /= 2
	}
	return uint32(a)
}

// products are the commands of a product. If its rows are not what fast algorithms need, it is
// widened or split. With an error come the commands that were made before it.
func (d *Device) products(p graph.Product) ([]command, error) {
	var list []command
	whole, zeros := widen(p)
	for _, l := range zeros {
		k, err := d.kernel("product", padSource, l)
		if err != nil {
			return list, err
		}
		list = append(list, k)
	}
	for _, part := range split(whole) {
		m, err := d.newProduct(part)
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
	return list, nil
}

// newProduct chooses an algorithm: the library's first proposal or, if products are tuned, the
// fastest of those with the same bits.
func (d *Device) newProduct(p graph.Product) (*product, error) {
	if p.From == 0 {
		p.From, p.LDFrom = p.C, p.LDC
	}
	m := &product{d: d, of: p, alpha: 1, beta: p.Beta}
	err := m.describe()
	var found []heuristicResult
	if err == nil {
		found, err = m.proposals(1)
	}
	if err == nil && (len(found) == 0 || found[0].state != 0) {
		err = errors.New("cublasLt knows none")
	}
	if err != nil {
		m.free()
		return nil, fmt.Errorf("cuda: no algorithm for the product M=%d N=%d K=%d (%v x %v -> %v, rows %d %d %d apart): %w",
			p.M, p.N, p.K, p.TypeA, p.TypeB, p.TypeC, p.LDA, p.LDB, p.LDC, err)
	}
	m.algorithm = found[0].algorithm
	if d.tuner == nil {
		return m, nil
	}
	if err := d.tune(m); err != nil {
		m.free()
		return nil, err
	}
	return m, nil
}

// describe tells cublasLt what is multiplied, in which types, and the memory layouts.
func (m *product) describe() error {
	b, p, compute := m.d.blas, &m.of, uintptr(computeFloat32)
	if m.d.tf32 && p.TypeA == graph.Float32 && p.TypeB == graph.Float32 {
		compute = computeTF32 // inputs are rounded
	}
	if err := b.call("cublasLtMatmulDescCreate", b.descCreate, uintptr(unsafe.Pointer(&m.desc)), compute, typeFloat32); err != nil {
		return err
	}
	for attr, on := range map[uintptr]bool{descTransA: p.TransB, descTransB: p.TransA} {
		var v int32
		if on {
			v = transpose
		}
		if err := b.call("cublasLtMatmulDescSetAttribute", b.descSet, m.desc, attr, uintptr(unsafe.Pointer(&v)), 4); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		to             *uintptr
		dtype          graph.DType
		rows, cols, ld int
		transposed     bool
	}{
		{&m.a, p.TypeA, p.M, p.K, p.LDA, p.TransA},
		{&m.b, p.TypeB, p.K, p.N, p.LDB, p.TransB},
		{&m.c, p.TypeC, p.M, p.N, p.LDC, false},
		{&m.z, p.TypeC, p.M, p.N, p.LDFrom, false},
	} {
		if l.transposed {
			l.rows, l.cols = l.cols, l.rows
		}
		kind, err := dataType(l.dtype)
		if err != nil {
			return err
		}
		// Row-major rows x cols is column-major cols x rows.
		if err := b.call("cublasLtMatrixLayoutCreate", b.layoutCreate, uintptr(unsafe.Pointer(l.to)), kind, uintptr(l.cols), uintptr(l.rows), uintptr(l.ld)); err != nil {
			return err
		}
	}
	return nil
}

// proposals are up to n algorithms that cublasLt's heuristic proposes for a product, its first
// choice first.
func (m *product) proposals(n int) ([]heuristicResult, error) {
	b := m.d.blas
	var pref uintptr
	if err := b.call("cublasLtMatmulPreferenceCreate", b.prefCreate, uintptr(unsafe.Pointer(&pref))); err != nil {
		return nil, err
	}
	defer purego.SyscallN(b.prefDestroy, pref)
	size := uint64(workspaceBytes)
	if err := b.call("cublasLtMatmulPreferenceSetAttribute", b.prefSet, pref, prefMaxWorkspace, uintptr(unsafe.Pointer(&size)), 8); err != nil {
		return nil, err
	}
	for i, address := range []uint64{m.of.B, m.of.A, m.of.From, m.of.C} {
		align := alignmentOf(address)
		if err := b.call("cublasLtMatmulPreferenceSetAttribute", b.prefSet, pref, uintptr(prefMinAlignA+i), uintptr(unsafe.Pointer(&align)), 4); err != nil {
			return nil, err
		}
	}
	var found int32
	results := make([]heuristicResult, n)
	err := b.call("cublasLtMatmulAlgoGetHeuristic", b.heuristic, m.d.lt, m.desc, m.b, m.a, m.z, m.c, pref, uintptr(len(results)), uintptr(unsafe.Pointer(&results[0])), uintptr(unsafe.Pointer(&found)))
	return results[:found], err
}

func (m *product) enqueue(stream uintptr) error {
	b, p := m.d.blas, &m.of
	return b.call("cublasLtMatmul", b.matmul, m.d.lt, m.desc, uintptr(unsafe.Pointer(&m.alpha)), uintptr(p.B), m.b, uintptr(p.A), m.a,
		uintptr(unsafe.Pointer(&m.beta)), uintptr(p.From), m.z, uintptr(p.C), m.c, uintptr(unsafe.Pointer(&m.algorithm)), uintptr(m.d.scratch), workspaceBytes, stream)
}

func (m *product) free() {
	b := m.d.blas
	for _, l := range []uintptr{m.a, m.b, m.c, m.z} {
		if l != 0 {
			purego.SyscallN(b.layoutDestroy, l)
		}
	}
	if m.desc != 0 {
		purego.SyscallN(b.descDestroy, m.desc)
	}
}
