//go:build linux

package cuda

import "github.com/sambatrain/sambatrain/graph"

const (
	// tensorBytes is what cublasLt's fast bfloat16 kernels require of each operand: the start of a
	// row, the distance between rows, and the length of rows must be multiples of it.
	tensorBytes = 16
	// minSplit is the number of multiply-adds from which a few additional small products are worth
	// it.
	minSplit = 1 << 35
)

// along is an operand whose rows are a dimension of a product.
type along struct {
	address uint64
	size    int // bytes of an element
}

// split divides a product whose rows are not multiples of 16 bytes into a large one with such rows
// and small ones for the rest. K is divided only if C is float32, since the parts are summed in C.
func split(p graph.Product) []graph.Product {
	whole := []graph.Product{p}
	if p.M*p.N*p.K < minSplit || p.TypeA != graph.BFloat16 || p.TypeB != graph.BFloat16 {
		return whole
	}
	from, ldFrom := p.C, p.LDC
	if p.Beta != 0 && p.From != 0 {
		from, ldFrom = p.From, p.LDFrom
	}
	a, b := along{p.A, p.TypeA.Size()}, along{p.B, p.TypeB.Size()}
	c, z := along{p.C, p.TypeC.Size()}, along{from, p.TypeC.Size()}
	for _, apart := range []int{p.LDA * a.size, p.LDB * b.size, p.LDC * c.size, ldFrom * z.size} {
		if apart%tensorBytes != 0 {
			return whole
		}
	}
	m, n, k := []along{}, []along{c, z}, []along{}
	if p.TransA {
		m = append(m, a)
	} else {
		k = append(k, a)
	}
	if p.TransB {
		k = append(k, b)
	} else {
		n = append(n, b)
	}
	var list []graph.Product
	depths := []int{p.K}
	if p.TypeC == graph.Float32 {
		depths = cut(p.K, k)
	}
	rows, columns := cut(p.M, m), cut(p.N, n)
	for atM, i := 0, 0; i < len(rows); atM, i = atM+rows[i], i+1 {
		for atN, j := 0, 0; j < len(columns); atN, j = atN+columns[j], j+1 {
			for atK, l := 0, 0; l < len(depths); atK, l = atK+depths[l], l+1 {
				list = append(list, part(p, [3]int{atM, atN, atK}, [3]int{rows[i], columns[j], depths[l]}))
			}
		}
	}
	return list
}

// cut is the lengths of the parts of a dimension: the middle part begins and ends at multiples of
// 16 bytes in all operands. It is a single part if that is impossible.
func cut(length int, operands []along) []int {
	granule := 1
	for _, o := range operands {
		granule = max(granule, tensorBytes/o.size)
	}
	aligned := func(head int) bool {
		for _, o := range operands {
			if (o.address+uint64(head*o.size))%tensorBytes != 0 {
				return false
			}
		}
		return true
	}
	head := 0
	for head < granule && !aligned(head) {
		head++
	}
	if head == granule || length < 2*granule {
		return []int{length}
	}
	var parts []int
	middle := (length - head) / granule * granule
	for _, n := range []int{head, middle, length - head - middle} {
		if n > 0 {
			parts = append(parts, n)
		}
	}
	return parts
}

// part is the product of some rows, columns and depth.
func part(p graph.Product, at, size [3]int) graph.Product {
	element := func(address uint64, t graph.DType, ld, row, col int, transposed bool) uint64 {
		if transposed {
			row, col = col, row
		}
		return address + uint64((row*ld+col)*t.Size())
	}
	q := p
	q.M, q.N, q.K = size[0], size[1], size[2]
	q.A = element(p.A, p.TypeA, p.LDA, at[0], at[2], p.TransA)
	q.B = element(p.B, p.TypeB, p.LDB, at[2], at[1], p.TransB)
	q.C = element(p.C, p.TypeC, p.LDC, at[0], at[1], false)
	switch {
	case at[2] > 0:
		q.Beta, q.From, q.LDFrom = 1, q.C, p.LDC
	case p.From != 0:
		q.From = element(p.From, p.TypeC, p.LDFrom, at[0], at[1], false)
	}
	return q
}
