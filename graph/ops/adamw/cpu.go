package adamw

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// block is a task's elements: long enough to be worth handing out.
const block = 1 << 16

func update(c *graph.CPUCall, s Settings) func() {
	p, g, m, v, norm, hyper := c.In[0].F32, c.In[1].F32, c.In[2].F32, c.In[3].F32, c.In[4].F32, c.In[5].F32
	step := simd.AdamWStep{Beta1: s.Beta1, Beta2: s.Beta2, Eps: s.Eps, WeightDecay: s.WeightDecay}
	task := func(i, _ int) {
		lo, hi := i*block, min((i+1)*block, len(p))
		simd.AdamW(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], &step)
	}
	tasks := (len(p) + block - 1) / block
	return func() {
		if !finite(float64(norm[0])) {
			return
		}
		step.LR = float64(hyper[LR])
		step.BiasCorrection1, step.BiasCorrection2 = float64(hyper[BiasCorrection1]), float64(hyper[BiasCorrection2])
		step.GradScale = s.gradScale(float64(norm[0]), float64(hyper[Scale]))
		c.Pool.Run(tasks, task)
	}
}
