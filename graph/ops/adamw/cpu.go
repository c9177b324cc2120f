package adamw

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// block is the number of elements of a task: enough to be worth scheduling.
const block = 1 << 16

func update(c *graph.CPUCall, s Settings) func() {
	return updateThen(c.In, c.Pool, s, func(int, int) {})
}

func updateMixed(c *graph.CPUCall, s Settings) func() {
	shadow, p := c.In[0].F32, c.In[1].F32
	return updateThen(c.In[1:], c.Pool, s, func(lo, hi int) {
		for i := lo / 2; i < hi/2; i++ {
			shadow[i] = pair(p[2*i], p[2*i+1])
		}
	})
}

// updateThen calls then for each block of elements after it is updated.
func updateThen(in []graph.Buffer, pool graph.Pool, s Settings, then func(lo, hi int)) func() {
	p, g, m, v, norm, hyper := in[0].F32, in[1].F32, in[2].F32, in[3].F32, in[4].F32, in[5].F32
	step := simd.AdamWStep{Beta1: s.Beta1, Beta2: s.Beta2, Eps: s.Eps, WeightDecay: s.WeightDecay}
	task := func(i, _ int) {
		lo, hi := i*block, min((i+1)*block, len(p))
		simd.AdamW(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], &step)
		then(lo, hi)
	}
	tasks := (len(p) + block - 1) / block
	return func() {
		if !finite(float64(norm[0])) {
			return
		}
		step.LR = float64(hyper[LR])
		step.BiasCorrection1, step.BiasCorrection2 = float64(hyper[BiasCorrection1]), float64(hyper[BiasCorrection2])
		step.GradScale = s.gradScale(float64(norm[0]), float64(hyper[Scale]))
		pool.Run(tasks, task)
	}
}
