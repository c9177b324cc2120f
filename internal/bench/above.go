package bench

import (
	"math"
	"strings"

	"github.com/sambatrain/sambatrain/recipes"
)

// Why a share of a limit can be above 1.
const (
	inCaches   = "caches, and other mixes of reads and writes than the limit's two, can be faster; or the machine was slower while that was measured"
	inBFloat16 = "products in bfloat16 are faster than the float32 multiply-adds of the limit"
	thenSlower = "the machine was slower while its limit was measured; measure again when nothing else is running"
	otherLimit = "the limit, which was not measured, is lower than what the machine does"
)

// Above says which shares are above 100%, as tables print them, and why.
func (r *Result) Above() []string {
	var memory, arithmetic []string
	if math.Round(1000*r.MFU) > 1000 {
		arithmetic = append(arithmetic, "MFU")
	}
	for _, o := range r.Ops {
		switch {
		case !(math.Round(100*o.PeakShare) > 100):
		case o.MemoryBound:
			memory = append(memory, o.Op)
		default:
			arithmetic = append(arithmetic, o.Op)
		}
	}
	var list []string
	for _, a := range []struct {
		ops []string
		why string
	}{{memory, inCaches}, {arithmetic, whyFaster(r.Precision)}} {
		if len(a.ops) > 0 {
			list = append(list, "above 100%: "+strings.Join(a.ops, ", ")+": "+a.why)
		}
	}
	return list
}

func whyFaster(precision string) string {
	if strings.HasPrefix(precision, recipes.BFloat16) {
		return inBFloat16
	}
	return thenSlower
}

// Above says whether shares are above 100%, as tables print them, and why.
func (g *Generation) Above() []string {
	prompts, decode := 0.0, 0.0
	for _, p := range g.Prompts {
		prompts = max(prompts, p.Share)
	}
	for _, d := range g.Decode {
		decode = max(decode, d.Share)
	}
	var list []string
	for _, a := range []struct {
		share             float64
		limit, why, given string
	}{{prompts, "compute", whyFaster(g.Precision), tflopsGiven}, {decode, "memory", inCaches, gbsGiven}} {
		if !strings.HasPrefix(g.Limits, measured) || strings.HasSuffix(g.Limits, a.given) {
			a.why = otherLimit
		}
		if math.Round(1000*a.share) > 1000 {
			list = append(list, "above 100% of the "+a.limit+" limit: "+a.why)
		}
	}
	return list
}
