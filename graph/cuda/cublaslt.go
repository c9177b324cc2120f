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

// blas is cublasLt with one handle.
type blas struct {
	lib    *dylib.Library
	handle uintptr

	create, destroy, descCreate, descSet, descDestroy uintptr
	layoutCreate, layoutDestroy                       uintptr
	prefCreate, prefSet, prefDestroy                  uintptr
	heuristic, check, matmul, version                 uintptr
}

var openBLAS = sync.OnceValues(func() (*blas, error) {
	lib, err := dylib.Open("libcublasLt.so.13", "libcublasLt.so.12")
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	b := &blas{lib: lib}
	err = lib.Symbols(map[*uintptr]string{
		&b.create: "cublasLtCreate", &b.destroy: "cublasLtDestroy", &b.version: "cublasLtGetVersion",
		&b.descCreate: "cublasLtMatmulDescCreate", &b.descSet: "cublasLtMatmulDescSetAttribute", &b.descDestroy: "cublasLtMatmulDescDestroy",
		&b.layoutCreate: "cublasLtMatrixLayoutCreate", &b.layoutDestroy: "cublasLtMatrixLayoutDestroy",
		&b.prefCreate: "cublasLtMatmulPreferenceCreate", &b.prefSet: "cublasLtMatmulPreferenceSetAttribute", &b.prefDestroy: "cublasLtMatmulPreferenceDestroy",
		&b.heuristic: "cublasLtMatmulAlgoGetHeuristic", &b.check: "cublasLtMatmulAlgoCheck", &b.matmul: "cublasLtMatmul",
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
	algo      [8]uint64
	workspace uint64
	state     int32
	waves     float32
	reserved  [4]int32
}

// product is a matrix product with its algorithm chosen.
type product struct {
	b                *blas
	desc             uintptr
	a, bb, c, from   uintptr // layouts in cublasLt's order
	addrA, addrB     uint64
	addrC, addrFrom  uint64
	result           heuristicResult
	alpha, beta      float32
	workspaceAddress uint64
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

// newProduct chooses an algorithm. cublasLt counts columns first, so that our C
// is its transpose: C' = op(B)' op(A)', and the operands change places. The choice
// is the library's first, and so the same in every run, but where products are tuned.
func (d *Device) newProduct(p *graph.Product, workspace uint64) (*product, error) {
	b, compute := d.blas, uintptr(computeFloat32)
	if d.tf32 && p.TypeA == graph.Float32 && p.TypeB == graph.Float32 {
		compute = computeTF32 // factors are rounded
	}
	m := &product{b: b, addrA: p.B, addrB: p.A, addrC: p.C, addrFrom: p.From, alpha: 1, beta: p.Beta, workspaceAddress: workspace}
	if err := b.call("cublasLtMatmulDescCreate", b.descCreate, uintptr(unsafe.Pointer(&m.desc)), compute, typeFloat32); err != nil {
		return nil, err
	}
	for attr, on := range map[uintptr]bool{descTransA: p.TransB, descTransB: p.TransA} {
		var v int32
		if on {
			v = transpose
		}
		if err := b.call("cublasLtMatmulDescSetAttribute", b.descSet, m.desc, attr, uintptr(unsafe.Pointer(&v)), 4); err != nil {
			return nil, err
		}
	}
	layout := func(to *uintptr, t graph.DType, rows, cols, ld int, transposed bool) error {
		if transposed {
			rows, cols = cols, rows
		}
		kind, err := dataType(t)
		if err != nil {
			return err
		}
		// Row-major rows x cols is column-major cols x rows.
		return b.call("cublasLtMatrixLayoutCreate", b.layoutCreate, uintptr(unsafe.Pointer(to)), kind, uintptr(cols), uintptr(rows), uintptr(ld))
	}
	if err := layout(&m.a, p.TypeB, p.K, p.N, p.LDB, p.TransB); err != nil {
		return nil, err
	}
	if err := layout(&m.bb, p.TypeA, p.M, p.K, p.LDA, p.TransA); err != nil {
		return nil, err
	}
	if err := layout(&m.c, p.TypeC, p.M, p.N, p.LDC, false); err != nil {
		return nil, err
	}
	if m.addrFrom == 0 {
		m.addrFrom, p.LDFrom = p.C, p.LDC
	}
	if err := layout(&m.from, p.TypeC, p.M, p.N, p.LDFrom, false); err != nil {
		return nil, err
	}
	var pref uintptr
	if err := b.call("cublasLtMatmulPreferenceCreate", b.prefCreate, uintptr(unsafe.Pointer(&pref))); err != nil {
		return nil, err
	}
	defer purego.SyscallN(b.prefDestroy, pref)
	size := uint64(workspaceBytes)
	if err := b.call("cublasLtMatmulPreferenceSetAttribute", b.prefSet, pref, prefMaxWorkspace, uintptr(unsafe.Pointer(&size)), 8); err != nil {
		return nil, err
	}
	for i, address := range []uint64{m.addrA, m.addrB, m.addrFrom, m.addrC} {
		align := alignmentOf(address)
		if err := b.call("cublasLtMatmulPreferenceSetAttribute", b.prefSet, pref, uintptr(prefMinAlignA+i), uintptr(unsafe.Pointer(&align)), 4); err != nil {
			return nil, err
		}
	}
	var found int32
	var results [candidates]heuristicResult
	wanted := 1
	if d.tuner != nil {
		wanted = candidates
	}
	err := b.call("cublasLtMatmulAlgoGetHeuristic", b.heuristic, b.handle, m.desc, m.a, m.bb, m.from, m.c, pref, uintptr(wanted), uintptr(unsafe.Pointer(&results[0])), uintptr(unsafe.Pointer(&found)))
	if err == nil && (found == 0 || results[0].state != 0) {
		err = errors.New("cublasLt knows none")
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: no algorithm for the product M=%d N=%d K=%d (%v x %v -> %v, rows %d %d %d apart): %w",
			p.M, p.N, p.K, p.TypeA, p.TypeB, p.TypeC, p.LDA, p.LDB, p.LDC, err)
	}
	m.result = results[0]
	if d.tuner != nil {
		return m, d.choose(m, p, results[:found])
	}
	return m, nil
}

func (m *product) enqueue(stream uintptr) error {
	return m.b.call("cublasLtMatmul", m.b.matmul, m.b.handle, m.desc, uintptr(unsafe.Pointer(&m.alpha)), uintptr(m.addrA), m.a, uintptr(m.addrB), m.bb,
		uintptr(unsafe.Pointer(&m.beta)), uintptr(m.addrFrom), m.from, uintptr(m.addrC), m.c, uintptr(unsafe.Pointer(&m.result.algo)), uintptr(m.workspaceAddress), workspaceBytes, stream)
}

func (m *product) free() {
	for _, l := range []uintptr{m.a, m.bb, m.c, m.from} {
		purego.SyscallN(m.b.layoutDestroy, l)
	}
	purego.SyscallN(m.b.descDestroy, m.desc)
}
