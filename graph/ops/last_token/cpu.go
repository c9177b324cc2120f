package last_token

import "github.com/sambatrain/sambatrain/graph"

func forward(c *graph.CPUCall) func() {
	x, y, tokens := c.In[0], c.Out[0], c.Dims["T"]
	return func() {
		for b := range y.Rows {
			copy(y.Row(b), x.Row((b+1)*tokens-1))
		}
	}
}
