//go:build linux

package cuda

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
)

// target is a kind of GPU that kernels are compiled for, and the limits of a thread block on it
// (CUDA C++ Programming Guide, Compute Capabilities).
type target struct {
	major, minor    int
	multiprocessors int // of a model with this capability: A100, L4, H100
	shared          int // bytes, static and dynamic
}

var targets = []target{{8, 0, 108, 163 << 10}, {8, 9, 58, 99 << 10}, {9, 0, 132, 227 << 10}}

const (
	blockThreads   = 1024
	blockRegisters = 64 << 10
	staticShared   = 48 << 10 // the limit without opting in to more
)

func (g target) arch() string { return architecture(g.major, g.minor) }

// eachLaunch calls f with the kernel launches of all ops' cases, forward and backward, in every
// precision and row stride. bench tells whether a launch has a real model's shape.
func eachLaunch(t *testing.T, g target, cases []graph.Case, f func(r *graph.Resolved, l graph.Launch, bench bool)) {
	t.Helper()
	for _, c := range cases {
		for _, r := range benchCalls(t, c) {
			if r.Spec.CUDA == nil {
				t.Errorf("%s has no CUDA kernel", r.Spec.Name)
				continue
			}
			variants(r, func(p precision, pad int) {
				if c.Bench && (pad != 0 || !p.mixed) {
					return
				}
				for _, l := range launchesOf(t, g, r, planCall(r, p, pad)) {
					if l.Kernel != "" {
						f(r, l, c.Bench)
					}
				}
			})
		}
	}
}

// TestLaunches checks every launch against the limits of each kind of GPU. It needs no GPU.
func TestLaunches(t *testing.T) {
	for _, g := range targets {
		for _, op := range ops.All() {
			t.Run(g.arch()+"/"+op.Name, func(t *testing.T) {
				eachLaunch(t, g, op.Cases(), func(r *graph.Resolved, l graph.Launch, _ bool) {
					if _, err := newKernel(&Device{}, 0, l); err != nil {
						t.Errorf("%s: %v", l.Kernel, err)
					}
					if n := threadsOf(l); n < 1 || n > blockThreads {
						t.Errorf("%s: %v threads", l.Kernel, l.Block)
					}
					for i, limit := range []int{1<<31 - 1, 1<<16 - 1, 1<<16 - 1} {
						if l.Grid[i] > limit {
							t.Errorf("%s: grid %v", l.Kernel, l.Grid)
						}
					}
					if l.Shared > g.shared {
						t.Errorf("%s: %d bytes of dynamic shared memory, of %d", l.Kernel, l.Shared, g.shared)
					}
				})
			})
		}
	}
}

func threadsOf(l graph.Launch) int {
	return max(l.Block[0], 1) * max(l.Block[1], 1) * max(l.Block[2], 1)
}

// TestSourcesCompile compiles the kernels that each op's cases launch, for every kind of GPU, and
// checks their registers and shared memory against the limits. It needs NVRTC but no GPU. At a real
// model's shapes, on compute capability 9.0, where models are trained, kernels must not spill
// registers: a spill that is not listed in spilling is an error. ARCH (sm_80, sm_89 or sm_90a)
// restricts it to one of them.
func TestSourcesCompile(t *testing.T) {
	compiler, err := openCompiler()
	if err != nil {
		t.Skipf("no NVRTC: %v", err)
	}
	for _, g := range targets {
		if one := os.Getenv("ARCH"); one != "" && one != g.arch() {
			continue
		}
		for _, op := range ops.All() {
			t.Run(g.arch()+"/"+op.Name, func(t *testing.T) {
				t.Parallel()
				done := map[string]map[string]footprint{} // of a source's kernels, by options
				eachLaunch(t, g, op.Cases(), func(r *graph.Resolved, l graph.Launch, bench bool) {
					opts := append(options(g.arch(), l.Defines), "--ptxas-options=-v")
					key := strings.Join(opts, " ")
					if done[key] == nil {
						done[key] = compileOne(t, compiler, r, opts)
					}
					k, ok := done[key][l.Kernel]
					if !ok {
						t.Fatalf("%s is not in the source with %s", l.Kernel, key)
					}
					k.check(t, g, l, bench && g.major == 9)
				})
			})
		}
	}
}

// spilling lists the kernels that may spill registers, with the number of bytes per thread: the
// scan's backward pass was measured to be faster this way than in forms that need fewer registers.
var spilling = map[string]int{
	"selective_scan_backward":   68,
	"linear_recurrence_within":  16,
	"gated_update_backward":     8,
	"linear_cross_entropy_rows": 8,
}

// footprint is the resources that a compiled kernel needs.
type footprint struct{ registers, shared, spilled int }

// check checks a launch of the kernel against the limits of its GPU.
func (k footprint) check(t *testing.T, g target, l graph.Launch, atScale bool) {
	t.Helper()
	const granule = 8 // registers are allocated in units of 8 per thread
	if n := (k.registers + granule - 1) / granule * granule * threadsOf(l); n > blockRegisters {
		t.Errorf("%s: %d registers of %d threads, of %d", l.Kernel, k.registers, threadsOf(l), blockRegisters)
	}
	if k.shared > staticShared || k.shared+l.Shared > g.shared {
		t.Errorf("%s: %d bytes of static and %d of dynamic shared memory, of %d", l.Kernel, k.shared, l.Shared, g.shared)
	}
	if may := spilling[l.Kernel]; atScale && k.spilled > may {
		t.Errorf("%s: spills %d bytes, of %d that are allowed", l.Kernel, k.spilled, may)
	}
}

// compileOne returns the footprints of a source's kernels, by name.
func compileOne(t *testing.T, c *compiler, r *graph.Resolved, opts []string) map[string]footprint {
	t.Helper()
	_, log, err := c.translate(r.Spec.Name+".cu", newUnit(r.Spec.CUDA.Source, "", nil).text, opts)
	if err != nil {
		t.Fatal(err)
	}
	number := func(re *regexp.Regexp, line string) int {
		m := re.FindStringSubmatch(line)
		if m == nil {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	kernels := map[string]footprint{}
	var name string
	var k footprint
	for _, line := range strings.Split(log, "\n") {
		if m := entryFunction.FindStringSubmatch(line); m != nil {
			name, k = m[1], footprint{}
		}
		k.spilled += number(spilledBytes, line)
		if n := number(usedRegisters, line); n > 0 {
			k.registers, k.shared = n, number(usedShared, line)
			kernels[name] = k
			t.Logf("%s: %d registers, %d bytes shared, %d spilled", name, k.registers, k.shared, k.spilled)
		}
	}
	return kernels
}

var (
	entryFunction = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	spilledBytes  = regexp.MustCompile(`(\d+) bytes spill stores`)
	usedRegisters = regexp.MustCompile(`Used (\d+) registers`)
	usedShared    = regexp.MustCompile(`(\d+) bytes smem`)
)

// launchesOf are a call's launches on a GPU that need not exist.
func launchesOf(t *testing.T, g target, r *graph.Resolved, plan *graph.Plan) []graph.Launch {
	t.Helper()
	prog := &Program{d: &Device{sms: g.multiprocessors, capability: 10*g.major + g.minor}, plan: plan, workspace: 1 << 40}
	for i := range prog.regions {
		prog.regions[i] = uint64(i+1) << 42
	}
	c := prog.call(0)
	launches, err := r.Spec.CUDA.Launches(c)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", r.Spec.Name, err))
	}
	if len(c.Out) == 0 {
		return launches
	}
	// And those that store a result in host memory.
	y := c.Out[0]
	c.Host = graph.DeviceBuffer{Address: 1 << 52, DType: graph.Float32, Rows: y.Rows, Cols: y.Cols, Stride: y.Cols}
	stored, err := r.Spec.CUDA.Launches(c)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", r.Spec.Name, err))
	}
	for _, l := range stored {
		if l.ToHost {
			launches = append(launches, l)
		}
	}
	return launches
}
