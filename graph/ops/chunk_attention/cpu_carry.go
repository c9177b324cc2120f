package chunk_attention

import "github.com/sambatrain/sambatrain/graph"

// carry binds the stateful kernel: the forward kernel, in which the first keys of the chunk come
// from the states, and then a copy of the call's last keys and values to the states.
func carry(c *graph.CPUCall) func() {
	a, position := newAttention(c), c.In[6].I32
	a.key, a.value = c.In[4], c.In[5]
	attend := func(i, worker int) { a.block(&a.workers[worker], i, int(position[i/a.blocks])) }
	kept := min(a.tokens, a.chunk)
	keep := func(i, _ int) {
		b, lo := i/blocks(kept), i%blocks(kept)*block
		for j := lo; j < min(lo+block, kept); j++ {
			t := a.tokens - kept + j
			slot := (int(position[b]) + t) % a.chunk
			copy(a.key.Row(b*a.chunk+slot), a.k.Row(b*a.tokens+t))
			copy(a.value.Row(b*a.chunk+slot), a.v.Row(b*a.tokens+t))
		}
	}
	return func() {
		reversed(a.bias, c.In[3].F32)
		c.Pool.Run(a.tasks, attend)
		c.Pool.Run(c.Dims["B"]*blocks(kept), keep)
	}
}
