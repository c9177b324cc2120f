//go:build linux

package cuda

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
	"github.com/sambatrain/sambatrain/internal/optest"
)

// open skips a test by name on a machine without a GPU.
func open(tb testing.TB) *Device {
	tb.Helper()
	d, err := New(0)
	if err != nil {
		tb.Skipf("no NVIDIA GPU: %v", err)
	}
	tb.Cleanup(func() { d.Close() })
	return d
}

// precision is float32, or mixed with bfloat16 and, narrow, Float24, and the error that it may have.
type precision struct {
	name          string
	mixed, narrow bool
	limit         float64
}

var precisions = []precision{{"float32", false, false, 2e-5}, {"mixed", true, false, 2e-2}, {"narrow", true, true, 2e-2}}

// narrowLimit is the error of a Float24: 2^-16 at most, of one element.
const narrowLimit = 1e-5

var shard = flag.String("shard", "0/1", "i/n: check the i-th of n parts of the ops' cases")

// TestCUDAOps checks every case of every op, and of its backward ops, against the
// float64 reference.
func TestCUDAOps(t *testing.T) {
	d := open(t)
	var part, parts, count int
	if _, err := fmt.Sscanf(*shard, "%d/%d", &part, &parts); err != nil || parts < 1 {
		t.Fatalf("-shard %s is not i/n", *shard)
	}
	for _, op := range ops.All() {
		for _, c := range op.Cases() {
			count++
			if c.Bench || count%parts != part {
				continue
			}
			r, err := c.Spec.ResolveDims(c.Dims)
			if err != nil {
				t.Fatal(err)
			}
			in := optest.Draw(c, r)
			calls := []optest.Call{{Resolved: r, In: in}}
			if c.Spec.Gradient != nil && c.Spec.Name != "add" {
				w, err := optest.RunBackward(c, r, in)
				if err != nil {
					t.Fatal(err)
				}
				calls = append(calls, w.Calls...)
			}
			for _, call := range calls {
				variants(call.Resolved, func(p precision, pad int) {
					t.Run(fmt.Sprintf("%s/%s/%s/pad %d", call.Spec.Name, c.Name, p.name, pad), func(t *testing.T) {
						check(t, d, call, p, pad)
					})
				})
			}
		}
	}
}

// toVectors is, instead of a number of elements, the padding to a multiple of 8.
const toVectors = -1

// variants are the precisions and the row paddings that a call is checked with.
func variants(r *graph.Resolved, run func(p precision, pad int)) {
	for _, p := range precisions {
		if p.narrow && len(r.Spec.Narrow) == 0 && !givesNarrow(r.Spec) {
			continue
		}
		for _, pad := range []int{0, 8, 3} {
			run(p, pad)
		}
		if slices.ContainsFunc(slices.Concat(r.In, r.Out), func(o graph.Operand) bool { return o.Strided && o.Shape.Cols()%8 != 0 }) {
			run(p, toVectors)
		}
	}
}

// givesNarrow reports whether a plan may make output 0 a Float24.
func givesNarrow(s *graph.Spec) bool { return s.Rounded != nil && s.Rounded().Unrounded != nil }

// loaded is a plan of one call, with a separate place for every operand.
type loaded struct {
	*Program
	in, out []graph.Slot
}

func loadCall(d *Device, r *graph.Resolved, p precision, pad int) (*loaded, error) {
	plan := planCall(r, p, pad)
	prog, err := d.Load(plan, nil)
	if err != nil {
		return nil, err
	}
	return &loaded{prog.(*Program), plan.Steps[0].In, plan.Steps[0].Out}, nil
}

// planCall is a plan of one call whose activations have pad elements after each row.
func planCall(r *graph.Resolved, p precision, pad int) *graph.Plan {
	plan := &graph.Plan{Inputs: map[string]graph.Slot{}, Results: map[string]graph.Slot{}}
	step, wide := graph.Step{Resolved: r}, !p.mixed
	slot := func(o graph.Operand, region graph.Region, precise bool) graph.Slot {
		s := graph.Slot{Region: region, Offset: plan.Sizes[region], Rows: o.Shape.Rows(), Cols: o.Shape.Cols(), Shape: o.Shape, DType: o.DType}
		s.Stride = s.Cols
		switch {
		case o.Strided && pad == toVectors:
			s.Stride = (s.Cols + 7) / 8 * 8
		case o.Strided:
			s.Stride += pad
		}
		if p.mixed && o.DType == graph.Float32 && !precise {
			s.DType = graph.BFloat16
		}
		plan.Sizes[region] += (s.Rows*s.Stride*s.DType.Size()+63)/64*16 + 16
		return s
	}
	narrow := func(s *graph.Slot, may bool) {
		if p.narrow && may {
			plan.Sizes[s.Region] = s.Offset + (s.Rows*s.Cols*graph.Float24.Size()+63)/64*16 + 16
			s.DType, s.Stride = graph.Float24, s.Cols
		}
	}
	for k, o := range r.In {
		// A state that is updated in place is float32 in any precision, except for caches.
		s := slot(o, graph.Inputs, o.Kind == graph.Precise || o.Updated && o.Kind != graph.Factor || len(o.Shape) < 2)
		narrow(&s, slices.Contains(r.Spec.Narrow, k))
		s.Pad = s.Stride - s.Cols
		wide = wide || (s.DType == graph.Float32 && o.Strided)
		step.In = append(step.In, s)
	}
	for i, o := range r.Out {
		// An output that isn't an activation is a parameter's gradient.
		s := slot(o, graph.Arena, o.Kind == graph.Precise || !o.Strided || i == 0 && r.Spec.Promote && wide)
		narrow(&s, i == 0 && givesNarrow(r.Spec))
		step.Out = append(step.Out, s)
	}
	plan.Steps = []graph.Step{step}
	return plan
}

// put writes an input to its staging memory and returns the values that the GPU will see.
func (l *loaded) put(s graph.Slot, data []float64) []float64 {
	seen := make([]float64, len(data))
	at := unsafe.Add(l.inputs, 4*s.Offset)
	for i, x := range data {
		o := i/s.Cols*s.Stride + i%s.Cols
		switch s.DType {
		case graph.Int32:
			unsafe.Slice((*int32)(at), o+1)[o] = int32(x)
			seen[i] = x
		case graph.BFloat16:
			b := toBF16(float32(x))
			unsafe.Slice((*uint16)(at), o+1)[o] = b
			seen[i] = float64(math.Float32frombits(uint32(b) << 16))
		case graph.Float24:
			b, rest := toBF16(float32(x)), int32(math.Float32bits(float32(x))+0x80)
			rest = min(rest>>8-int32(int16(b))<<8, math.MaxInt8)
			unsafe.Slice((*uint16)(at), o+1)[o] = b
			unsafe.Slice((*int8)(unsafe.Add(at, 2*len(data))), o+1)[o] = int8(rest)
			seen[i] = fromFloat24(b, int8(rest))
		default:
			unsafe.Slice((*float32)(at), o+1)[o] = float32(x)
			seen[i] = float64(float32(x))
		}
	}
	return seen
}

// fromFloat24 is the number that an element's parts in both planes are.
func fromFloat24(high uint16, rest int8) float64 {
	return float64(math.Float32frombits(uint32(int32(high)<<16 + int32(rest)<<8)))
}

// read copies an output to dst.
func (l *loaded) read(t *testing.T, s graph.Slot, dst []float32) {
	t.Helper()
	if s.DType != graph.Float24 {
		if err := l.ReadSlot(s, dst); err != nil {
			t.Fatal(err)
		}
		return
	}
	raw := l.arena(t)[4*s.Offset:]
	for i := range dst {
		dst[i] = float32(fromFloat24(uint16(raw[2*i])|uint16(raw[2*i+1])<<8, int8(raw[2*len(dst)+i])))
	}
}

// arena is a copy of the arena.
func (l *loaded) arena(t *testing.T) []byte {
	t.Helper()
	leave, err := l.d.enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	raw := make([]byte, 4*l.plan.Sizes[graph.Arena])
	if err := l.d.driver.call("cuMemcpyDtoH", l.d.driver.copyDtoH, uintptr(unsafe.Pointer(&raw[0])), uintptr(l.regions[graph.Arena]), uintptr(len(raw))); err != nil {
		t.Fatal(err)
	}
	return raw
}

// bf16 is the bfloat16 nearest to x.
func bf16(x float32) float64 { return float64(math.Float32frombits(uint32(toBF16(x)) << 16)) }

// toBF16 rounds to nearest even.
func toBF16(x float32) uint16 {
	b := math.Float32bits(x)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

const poison = 0xff // a NaN both as float32 and as bfloat16

func check(t *testing.T, d *Device, c optest.Call, p precision, pad int) {
	t.Helper()
	l, err := loadCall(d, c.Resolved, p, pad)
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	staging := unsafe.Slice((*byte)(l.inputs), 4*l.plan.Sizes[graph.Inputs])
	for i := range staging {
		staging[i] = poison
	}
	seen := make([]graph.Array, len(c.In))
	for i, a := range c.In {
		seen[i] = graph.Array{Shape: a.Shape, Data: l.put(l.in[i], a.Data)}
	}
	after, want := optest.Expected(c.Resolved, seen)
	var first [][]float32
	for run := range 2 {
		l.poisonArena(t)
		if err := l.Run(); err != nil {
			t.Fatal(err)
		}
		var got [][]float32
		for i, o := range c.Resolved.Out {
			x := make([]float32, o.Shape.Size())
			l.read(t, l.out[i], x)
			got = append(got, x)
			if run == 0 {
				limit := p
				if l.out[i].DType == graph.Float24 {
					limit.limit = narrowLimit
				}
				near(t, "output "+o.Name, x, want[i].Data, limit)
			} else if j := differ(first[i], x); j >= 0 {
				t.Errorf("output %s: element %d is %v in one run and %v in the next", o.Name, j, first[i][j], x[j])
			}
		}
		for i, o := range c.Resolved.In {
			if !o.Updated {
				continue
			}
			x := make([]float32, o.Shape.Size())
			if err := l.ReadSlot(l.in[i], x); err != nil {
				t.Fatal(err)
			}
			if run == 0 {
				near(t, "updated "+o.Name, x, after[i].Data, p)
			}
		}
		if run == 0 {
			first = got
		}
	}
	l.checkGuards(t)
}

func differ(a, b []float32) int {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return i
		}
	}
	return -1
}

func (l *loaded) poisonArena(t *testing.T) {
	t.Helper()
	leave, err := l.d.enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if n := 4 * l.plan.Sizes[graph.Arena]; n > 0 {
		if err := l.d.driver.call("cuMemsetD8", l.d.driver.memset, uintptr(l.regions[graph.Arena]), poison, uintptr(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// checkGuards checks the bytes of the arena that belong to no output: nothing may write to them, except
// for zeros to padding.
func (l *loaded) checkGuards(t *testing.T) {
	t.Helper()
	n := 4 * l.plan.Sizes[graph.Arena]
	if n == 0 {
		return
	}
	raw := l.arena(t)
	mine, padding := make([]bool, n), make([]bool, n)
	for _, s := range l.out {
		for i := range s.Rows {
			from := 4*s.Offset + i*s.Stride*s.DType.Size()
			for k := range s.Stride * s.DType.Size() {
				mine[from+k] = k < s.Cols*s.DType.Size()
				// A kernel may write zeros up to a whole vector, if the row ends there.
				padding[from+k] = s.Stride == (s.Cols+7)/8*8
			}
		}
	}
	for i, b := range raw {
		if !mine[i] && b != poison && !(b == 0 && padding[i]) {
			t.Fatalf("wrote outside the outputs, at byte %d of %d", i, n)
		}
	}
}

// near compares by the largest error in float32, and by norms in mixed precision.
func near(t *testing.T, name string, got []float32, want []float64, p precision) {
	t.Helper()
	var worst, scale, diff2, want2 float64
	at := 0
	for i, w := range want {
		e := math.Abs(float64(got[i]) - w)
		if e > worst || math.IsNaN(e) && !math.IsNaN(worst) {
			at = i
		}
		worst = math.Max(worst, e) // NaN if one of them is
		scale = math.Max(scale, math.Abs(w))
		diff2 += e * e
		want2 += w * w
	}
	e := worst / scale
	if p.mixed {
		e = math.Sqrt(diff2 / want2)
	}
	if scale == 0 {
		e = worst
	}
	if !(e <= p.limit) {
		t.Errorf("%s: error %.2g; worst at element %d of %d: %v, want %v", name, e, at, len(want), got[at], want[at])
	}
}

// BenchmarkCUDA times the benchmark cases, with the shapes of real models, in mixed precision on
// the device: ms per call, and the rate of the work that the op declares.
func BenchmarkCUDA(b *testing.B) {
	d := open(b)
	for _, op := range ops.All() {
		for _, c := range op.Cases() {
			if !c.Bench {
				continue
			}
			for _, r := range benchCalls(b, c) {
				b.Run(r.Spec.Name+"/"+c.Name, func(b *testing.B) { bench(b, d, r) })
			}
		}
	}
}

// benchCalls are a case's forward and backward ops. The backward pass is compiled, not run.
func benchCalls(b testing.TB, c graph.Case) []*graph.Resolved {
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		b.Fatal(err)
	}
	list := []*graph.Resolved{r}
	if c.Spec.Gradient == nil || c.Spec.Name == "add" {
		return list
	}
	plan, err := optest.GradientPlan(c, r, make([]float64, r.Out[0].Shape.Size()))
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range optest.BackwardSteps(plan) {
		list = append(list, s.Resolved)
	}
	return list
}

func bench(b *testing.B, d *Device, r *graph.Resolved) {
	l, err := loadCall(d, r, precision{mixed: true}, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer l.release()
	// Small numbers of both signs; zeros would run faster than real data.
	for i, o := range r.In {
		data := make([]float64, o.Shape.Size())
		for k := range data {
			data[k] = float64((k*7919)%201-100) / 400
			if o.DType == graph.Int32 {
				data[k] = float64(k % 64)
			}
		}
		l.put(l.in[i], data)
	}
	times := make([]time.Duration, 1)
	for range 3 {
		if err := l.RunTimed(times); err != nil {
			b.Fatal(err)
		}
	}
	times[0] = 0
	n := 0
	for b.Loop() {
		if err := l.RunTimed(times); err != nil {
			b.Fatal(err)
		}
		n++
	}
	s := times[0].Seconds() / float64(n)
	b.ReportMetric(s*1e3, "device-ms")
	if r.Spec.Cost != nil {
		cost := r.Spec.Cost(r.Dims)
		b.ReportMetric(cost.FLOPs/s/1e12, "TFLOP/s")
		b.ReportMetric(cost.Bytes/2/s/1e9, "bf16-GB/s")
	}
}
