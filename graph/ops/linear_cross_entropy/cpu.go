package linear_cross_entropy

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// A chunk is as many rows as have chunkLogits logits in total (64 MiB), within bounds: with few
	// rows the products are dominated by reading w and dw.
	chunkLogits  = 16 << 20
	minChunkRows = 64
	maxChunkRows = 512
	// rowsPerTask is the number of rows of logits that one task turns into gradients.
	rowsPerTask = 2
	// expBlock is the longest sum of exponentials that is accumulated in float32.
	expBlock = 1024
)

func chunkRows(vocab int) int {
	return min(max(chunkLogits/vocab/minChunkRows*minChunkRows, minChunkRows), maxChunkRows)
}

// logitStride keeps the logits of one id in different cache sets if V is a power of 2.
func logitStride(vocab int) int { return (vocab+15)/16*16 + 16 }

// chunk is the products for some rows of x. Its logits are in the workspace, where the next chunk's
// replace them.
type chunk struct {
	first, rows    int
	logits, dx, dw simd.Gemm
}

// chunks divides x into chunks. The strides of x, w and dx matter only when the products are bound.
func chunks(d graph.Dims, strideX, strideW, strideDX int) []chunk {
	n, vocab, width := d["B"]*d["T"], d["V"], d["D"]
	each, stride := min(n, chunkRows(vocab)), logitStride(vocab)
	var list []chunk
	for first := 0; first < n; first += each {
		rows := min(each, n-first)
		list = append(list, chunk{
			first: first, rows: rows,
			logits: simd.Gemm{M: rows, N: vocab, K: width, TransB: true, LDA: strideX, LDB: strideW, LDC: stride},
			dx:     simd.Gemm{M: rows, N: width, K: vocab, LDA: stride, LDB: strideW, LDC: strideDX},
			dw: simd.Gemm{M: vocab, N: width, K: rows, TransA: true, LDA: stride, LDB: strideX, LDC: width,
				Accumulate: first > 0},
		})
	}
	return list
}

// round sets whether the products round their inputs to bfloat16.
func (c *chunk) round(factors bool) {
	c.logits.RoundFactors, c.dx.RoundFactors, c.dw.RoundFactors = factors, factors, factors
}

func trainWorkspace(d graph.Dims, workers int) int {
	return workspace(d, func(c chunk) int {
		return max(c.logits.WorkspaceEither(workers), c.dx.WorkspaceEither(workers), c.dw.WorkspaceEither(workers))
	})
}

func evalWorkspace(d graph.Dims, workers int) int {
	return workspace(d, func(c chunk) int { return c.logits.WorkspaceEither(workers) })
}

// workspace is the size of the logits of a chunk and of what the largest product needs.
func workspace(d graph.Dims, products func(chunk) int) int {
	list, most := chunks(d, d["D"], d["D"], d["D"]), 0
	for _, c := range list {
		most = max(most, products(c))
	}
	return list[0].rows*logitStride(d["V"]) + most
}

func train(c *graph.CPUCall) func() {
	x, w, dx, dw := c.In[0], c.In[1], c.Out[2], c.Out[3]
	s := newSoftmax(c, true)
	runs := make([]func(), 0, 4)
	for _, k := range chunks(c.Dims, x.Stride, w.Stride, dx.Stride) {
		k.round(c.RoundFactors)
		part := x.F32[k.first*x.Stride:]
		runs = append(runs,
			k.logits.Bind(c.Pool, part, w.F32, s.logits, s.rest),
			s.bind(c.Pool, k),
			k.dx.Bind(c.Pool, s.logits, w.F32, dx.F32[k.first*dx.Stride:], s.rest),
			k.dw.Bind(c.Pool, s.logits, part, dw.F32, s.rest))
	}
	return s.bindAll(c, runs)
}

func eval(c *graph.CPUCall) func() {
	x, w := c.In[0], c.In[1]
	s := newSoftmax(c, false)
	var runs []func()
	for _, k := range chunks(c.Dims, x.Stride, w.Stride, x.Stride) {
		k.round(c.RoundFactors)
		runs = append(runs,
			k.logits.Bind(c.Pool, x.F32[k.first*x.Stride:], w.F32, s.logits, s.rest),
			s.bind(c.Pool, k))
	}
	return s.bindAll(c, runs)
}

// softmax turns rows of logits into nll and, for training, gradients.
type softmax struct {
	targets []int32
	nll     []float32
	vocab   int
	of      []int32 // the operand count; nil: the targets here are counted
	n       float64 // the divisor of the sum of nll
	train   bool
	logits  []float32 // of a chunk
	rest    []float32 // of the workspace
}

func newSoftmax(c *graph.CPUCall, train bool) *softmax {
	vocab := c.Dims["V"]
	size := min(c.Dims["B"]*c.Dims["T"], chunkRows(vocab)) * logitStride(vocab)
	s := &softmax{
		targets: c.In[2].I32, nll: c.Out[1].F32, vocab: vocab, train: train,
		logits: c.Workspace[:size], rest: c.Workspace[size:],
	}
	if len(c.In) > partInput {
		s.of = c.In[partInput].I32
	}
	return s
}

func (s *softmax) bind(p graph.Pool, k chunk) func() {
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, k.rows); r++ {
			s.row(k.first+r, s.logits[r*logitStride(s.vocab):][:s.vocab])
		}
	}
	tasks := (k.rows + rowsPerTask - 1) / rowsPerTask
	return func() { p.Run(tasks, task) }
}

// row replaces the logits of token i by their gradient.
func (s *softmax) row(i int, logits []float32) {
	target := int(s.targets[i])
	if target < 0 {
		s.nll[i] = 0
		if s.train {
			clear(logits)
		}
		return
	}
	greatest := simd.Max(logits)
	logit := float64(logits[target]) - float64(greatest)
	// The target's own term is kept separate: 1 - p[target] is the sum of the others'
	// probabilities, which float32 would lose to rounding where the model is confident.
	others := expSum(logits[:target], greatest) + expSum(logits[target+1:], greatest)
	sum := others + math.Exp(logit)
	s.nll[i] = float32(math.Log(sum) - logit)
	if s.train {
		scale := 1 / (sum * s.n)
		simd.Scale(logits, float32(scale), logits)
		logits[target] = float32(-others * scale)
	}
}

// expSum replaces x by exp(x - greatest) and returns the sum.
func expSum(x []float32, greatest float32) float64 {
	sum := 0.0
	for len(x) > 0 {
		block := x[:min(len(x), expBlock)]
		sum += float64(simd.SoftmaxExp(block, block, greatest))
		x = x[len(block):]
	}
	return sum
}

// divisor is the divisor of the sum of nll, if this many targets count here; 1 if none does.
func (s *softmax) divisor(counted int) float64 {
	total, parts := counted, 1
	if s.of != nil {
		total, parts = int(s.of[0]), int(s.of[1])
	}
	return divisor(total, parts)
}

// bindAll checks and counts the targets, runs the chunks in order, and takes the mean.
func (s *softmax) bindAll(c *graph.CPUCall, runs []func()) func() {
	loss := c.Out[0].F32
	return func() {
		counted := 0
		for i, target := range s.targets {
			checkTarget(i, int(target), s.vocab)
			if target >= 0 {
				counted++
			}
		}
		s.n = s.divisor(counted)
		for _, run := range runs {
			run()
		}
		sum := 0.0
		for _, x := range s.nll {
			sum += float64(x)
		}
		loss[0] = float32(sum / s.n)
	}
}
