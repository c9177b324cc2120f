package linear_recurrence

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// decay implements the part within a span that depends on the kind of decay.
type decay interface {
	// prepare computes the span's scores, reads, writes and total.
	prepare(w *scratch, s span, q, k matrix)
	// gradient turns dq and dk from the gradients of reads and writes into those of q and k, adds
	// those by the scores, whose gradient is dscores where s <= t, and computes g's gradient. It
	// may change dscores.
	gradient(w *scratch, s span, dscores, q, k, dq, dk matrix)
}

// newDecay makes the decay of a call. gates are g and, in the backward pass, dg.
func (f *form) newDecay(s shape, gates []graph.Buffer) decay {
	scale := 1 / math.Sqrt(float64(s.keys))
	if f.fixed() {
		return newFixed(f.logDecay, s, scale)
	}
	g := &gated{shape: s, scale: float32(scale), g: gates[0]}
	if len(gates) > 1 {
		g.dg = gates[1]
	}
	return g
}

// scratch is a worker's memory for one span.
type scratch struct {
	q        []float32 // [C Dk]: queries / sqrt(Dk)
	decays   []float32 // [C Dk]
	factors  []float32 // [C Dk]: queries or keys times decays
	grads    []float32 // [C Dk]: of the factors
	sum      []float32 // [Dk]
	products []float32
}

func (s shape) scratchSize() int {
	return 4*pad(s.longest()*s.keys) + pad(s.keys) + pad(s.productScratch())
}

func newScratch(s shape, m *cutter) scratch {
	n := pad(s.longest() * s.keys)
	return scratch{m.next(n), m.next(n), m.next(n), m.next(n), m.next(pad(s.keys))[:s.keys], m.next(pad(s.productScratch()))}
}

// fixed is one decay per head.
type fixed struct {
	shape
	scale float64
	// powers[h][n] is the decay over n tokens, n <= C.
	powers [][]float32
	// scores[h] is [C C]: the decay from token s to t, divided by sqrt(Dk); 0 for s > t.
	scores []matrix
}

func newFixed(logDecay []float64, s shape, scale float64) *fixed {
	f, n := &fixed{shape: s, scale: scale}, s.longest()
	for _, g := range logDecay {
		powers, scores := make([]float32, n+1), matrix{make([]float32, n*n), n}
		for t := range powers {
			powers[t] = float32(math.Exp(g * float64(t)))
		}
		for t := range n {
			for from := range t + 1 {
				scores.data[t*n+from] = float32(scale * math.Exp(g*float64(t-from)))
			}
		}
		f.powers, f.scores = append(f.powers, powers), append(f.scores, scores)
	}
	return f
}

func (f *fixed) prepare(w *scratch, s span, q, k matrix) {
	powers := f.powers[s.head]
	product{a: plain(q), b: transposed(k), c: s.scores, m: s.n, n: s.n, k: f.keys}.run(w.products)
	for t := range s.n {
		simd.Mul(s.scores.row(t, s.n), s.scores.row(t, s.n), f.scores[s.head].row(t, s.n))
		simd.Scale(s.reads.row(t, f.keys), float32(f.scale)*powers[t+1], q.row(t, f.keys))
		simd.Scale(s.writes.row(t, f.keys), powers[s.n-1-t], k.row(t, f.keys))
	}
	for i := range s.total {
		s.total[i] = powers[s.n]
	}
}

func (f *fixed) gradient(w *scratch, s span, dscores, q, k, dq, dk matrix) {
	powers := f.powers[s.head]
	for t := range s.n {
		simd.Mul(dscores.row(t, s.n), dscores.row(t, s.n), f.scores[s.head].row(t, s.n))
		simd.Scale(dq.row(t, f.keys), float32(f.scale)*powers[t+1], dq.row(t, f.keys))
		simd.Scale(dk.row(t, f.keys), powers[s.n-1-t], dk.row(t, f.keys))
	}
	product{a: plain(dscores), b: plain(k), c: dq, m: s.n, n: f.keys, k: s.n, add: true}.run(w.products)
	product{a: transposed(dscores), b: plain(q), c: dk, m: s.n, n: f.keys, k: s.n, add: true}.run(w.products)
}

// gated is a decay per channel and token. The decay between tokens s < t is the product of a decay
// from s to some point between them and one from there to t, neither of which exceeds 1, however
// strong the decay is. So a span is halved, all tokens of the second half read from all tokens of
// the first half by one matrix product of factors that are decayed to the middle, and each half is
// halved again: every pair of tokens occurs once. Logarithms are summed from the middle, so that
// the sum is accurate where the decay is not negligible.
type gated struct {
	shape
	scale float32
	g, dg graph.Buffer
}

func (f *gated) prepare(w *scratch, s span, q, k matrix) {
	g, size := headOf(f.g, s.first, s.head, f.keys), s.n*f.keys
	scaled, decays := matrix{w.q, f.keys}, matrix{w.decays, f.keys}
	for t := range s.n {
		simd.Scale(scaled.row(t, f.keys), f.scale, q.row(t, f.keys))
		clear(s.scores.row(t, s.n))
		s.scores.row(t, s.n)[t] = simd.Dot(scaled.row(t, f.keys), k.row(t, f.keys))
	}
	f.fromStart(decays, g, 0, s.n)
	simd.Exp(w.decays[:size], w.decays[:size])
	copy(s.total, decays.row(s.n-1, f.keys))
	simd.Mul(s.reads.data[:size], w.decays[:size], w.q[:size])
	f.toEnd(decays, g, 0, s.n)
	simd.Exp(w.decays[:size], w.decays[:size])
	for t := range s.n {
		simd.Mul(s.writes.row(t, f.keys), decays.row(t, f.keys), k.row(t, f.keys))
	}
	for half := f.halves(s.n); half > 0; half /= 2 {
		factors := f.factors(w, g, k, s.n, half)
		for lo := 0; lo+half < s.n; lo += 2 * half {
			mid, hi := lo+half, min(lo+2*half, s.n)
			product{a: plain(factors.from(mid, 0)), b: transposed(factors.from(lo, 0)), c: s.scores.from(mid, lo),
				m: hi - mid, n: half, k: f.keys}.run(w.products)
		}
	}
}

// halves is the largest power of two below n, 0 for n = 1.
func (f *gated) halves(n int) int {
	half := 0
	for p := 1; p < n; p *= 2 {
		half = p
	}
	return half
}

// fromStart sets the logarithms of the decays of tokens [lo, hi) from just before lo.
func (f *gated) fromStart(decays, g matrix, lo, hi int) {
	for t := lo; t < hi; t++ {
		if t == lo {
			copy(decays.row(t, f.keys), g.row(t, f.keys))
			continue
		}
		simd.Add(decays.row(t, f.keys), decays.row(t-1, f.keys), g.row(t, f.keys))
	}
}

// toEnd sets the logarithms of the decays from tokens [lo, hi) to hi-1.
func (f *gated) toEnd(decays, g matrix, lo, hi int) {
	for t := hi - 1; t >= lo; t-- {
		if t == hi-1 {
			clear(decays.row(t, f.keys))
			continue
		}
		simd.Add(decays.row(t, f.keys), decays.row(t+1, f.keys), g.row(t+1, f.keys))
	}
}

// factors are, for each pair of neighboring halves of this many tokens, the keys of the first
// decayed to its end and the queries of the second decayed from there.
func (f *gated) factors(w *scratch, g, k matrix, n, half int) matrix {
	decays, factors := matrix{w.decays, f.keys}, matrix{w.factors, f.keys}
	for lo := 0; lo < n; lo += 2 * half {
		f.toEnd(decays, g, lo, min(lo+half, n))
		f.fromStart(decays, g, min(lo+half, n), min(lo+2*half, n))
	}
	simd.Exp(w.decays[:n*f.keys], w.decays[:n*f.keys])
	for t := range n {
		x := matrix{w.q, f.keys}
		if t/half%2 == 0 {
			x = k
		}
		simd.Mul(factors.row(t, f.keys), decays.row(t, f.keys), x.row(t, f.keys))
	}
	return factors
}

func (f *gated) gradient(w *scratch, s span, dscores, q, k, dq, dk matrix) {
	g, dg := headOf(f.g, s.first, s.head, f.keys), headOf(f.dg, s.first, s.head, f.keys)
	scaled, decays, grads := matrix{w.q, f.keys}, matrix{w.decays, f.keys}, matrix{w.grads, f.keys}
	for t := range s.n {
		simd.Scale(scaled.row(t, f.keys), f.scale, q.row(t, f.keys))
		clear(dg.row(t, f.keys))
	}
	// The whole span is the second half in relation to the state before it, and the first half in
	// relation to the state after it.
	f.fromStart(decays, g, 0, s.n)
	simd.Exp(w.decays[:s.n*f.keys], w.decays[:s.n*f.keys])
	f.take(grads, dq, s.n)
	clear(w.sum)
	f.later(w, scaled, dq, dg, 0, s.n)
	f.toEnd(decays, g, 0, s.n)
	simd.Exp(w.decays[:s.n*f.keys], w.decays[:s.n*f.keys])
	f.take(grads, dk, s.n)
	copy(w.sum, s.through)
	f.earlier(w, k, dk, dg, 0, s.n)

	for half := f.halves(s.n); half > 0; half /= 2 {
		factors := f.factors(w, g, k, s.n, half)
		for lo := 0; lo+half < s.n; lo += 2 * half {
			mid, hi := lo+half, min(lo+2*half, s.n)
			product{a: plain(dscores.from(mid, lo)), b: plain(factors.from(lo, 0)), c: grads.from(mid, 0),
				m: hi - mid, n: f.keys, k: half}.run(w.products)
			clear(w.sum)
			f.later(w, scaled, dq, dg, mid, hi)
			product{a: transposed(dscores.from(mid, lo)), b: plain(factors.from(mid, 0)), c: grads.from(lo, 0),
				m: half, n: f.keys, k: hi - mid}.run(w.products)
			clear(w.sum)
			f.earlier(w, k, dk, dg, lo, mid)
		}
	}
	for t := range s.n {
		d := dscores.row(t, s.n)[t]
		simd.Axpy(d, k.row(t, f.keys), dq.row(t, f.keys))
		simd.Axpy(d, scaled.row(t, f.keys), dk.row(t, f.keys))
		simd.Scale(dq.row(t, f.keys), f.scale, dq.row(t, f.keys))
	}
}

// take moves n rows.
func (f *gated) take(to, from matrix, n int) {
	for t := range n {
		copy(to.row(t, f.keys), from.row(t, f.keys))
		clear(from.row(t, f.keys))
	}
}

// later propagates the gradients of the decayed queries of tokens [lo, hi) to the queries. g at t
// decays what tokens t and later read.
func (f *gated) later(w *scratch, q, dq, dg matrix, lo, hi int) {
	decays, grads := matrix{w.decays, f.keys}, matrix{w.grads, f.keys}
	for t := hi - 1; t >= lo; t-- {
		d := grads.row(t, f.keys)
		simd.Mul(d, d, decays.row(t, f.keys))
		simd.Add(dq.row(t, f.keys), dq.row(t, f.keys), d)
		simd.MulAdd(w.sum, d, q.row(t, f.keys))
		simd.Add(dg.row(t, f.keys), dg.row(t, f.keys), w.sum)
	}
}

// earlier propagates the gradients of the decayed keys of tokens [lo, hi) to the keys. g at t
// decays what tokens before t wrote, and what w.sum starts with.
func (f *gated) earlier(w *scratch, k, dk, dg matrix, lo, hi int) {
	decays, grads := matrix{w.decays, f.keys}, matrix{w.grads, f.keys}
	for t := lo; t < hi; t++ {
		d := grads.row(t, f.keys)
		simd.Mul(d, d, decays.row(t, f.keys))
		simd.Add(dg.row(t, f.keys), dg.row(t, f.keys), w.sum)
		simd.Add(dk.row(t, f.keys), dk.row(t, f.keys), d)
		simd.MulAdd(w.sum, d, k.row(t, f.keys))
	}
}
