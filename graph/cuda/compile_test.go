//go:build linux

package cuda

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops"
)

// TestSourcesCompile compiles the kernels that each op's cases launch. It needs NVRTC
// and no GPU. Kernels at a real model's shapes must keep their registers: a spill is
// an error. ARCH (sm_90a) is the target.
func TestSourcesCompile(t *testing.T) {
	compiler, err := openCompiler()
	if err != nil {
		t.Skipf("no NVRTC: %v", err)
	}
	arch := cmp.Or(os.Getenv("ARCH"), "sm_90a")
	for _, op := range ops.All() {
		t.Run(op.Name, func(t *testing.T) {
			t.Parallel()
			done := map[string]bool{}
			for _, c := range op.Cases() {
				for _, r := range benchCalls(t, c) {
					if r.Spec.CUDA == nil {
						t.Errorf("%s has no CUDA kernel", r.Spec.Name)
						continue
					}
					variants(func(p precision, pad int) {
						if c.Bench && (pad != 0 || !p.mixed) {
							return
						}
						for _, l := range launchesOf(t, r, planCall(r, p, pad)) {
							opts := append(options(arch, l.Defines), "--ptxas-options=-v")
							key := r.Spec.Name + strings.Join(opts, " ")
							if l.Product != nil || done[key] {
								continue
							}
							done[key] = true
							compileOne(t, compiler, r, opts, c.Bench)
						}
					})
				}
			}
		})
	}
}

func compileOne(t *testing.T, c *compiler, r *graph.Resolved, opts []string, noSpills bool) {
	t.Helper()
	_, log, err := c.translate(r.Spec.Name+".cu", common+"\n#line 1 \"op\"\n"+r.Spec.CUDA.Source, opts)
	if err != nil {
		t.Fatal(err)
	}
	kernel := ""
	for _, line := range strings.Split(log, "\n") {
		if m := entryFunction.FindStringSubmatch(line); m != nil {
			kernel = m[1]
		}
		if m := spilledBytes.FindStringSubmatch(line); m != nil && noSpills && (m[1] != "0" || m[2] != "0") {
			t.Errorf("%s spills %s bytes and loads %s", kernel, m[1], m[2])
		}
		if strings.Contains(line, "registers") {
			t.Logf("%s: %s", kernel, strings.TrimSpace(line))
		}
	}
}

var (
	entryFunction = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	spilledBytes  = regexp.MustCompile(`(\d+) bytes spill stores, (\d+) bytes spill loads`)
)

// launchesOf are a call's launches on a GPU that isn't there.
func launchesOf(t *testing.T, r *graph.Resolved, plan *graph.Plan) []graph.Launch {
	t.Helper()
	prog := &Program{d: &Device{sms: 132, capability: 90}, plan: plan, workspace: 1 << 40}
	for i := range prog.regions {
		prog.regions[i] = uint64(i+1) << 42
	}
	launches, err := r.Spec.CUDA.Launches(prog.call(plan.Steps[0]))
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", r.Spec.Name, err))
	}
	return launches
}
