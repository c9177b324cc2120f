package linear

import "github.com/sambatrain/sambatrain/graph"

// products is a CUDA that consists of one matrix product: it has no source to compile.
func products(p func(c *graph.CUDACall) graph.Product) *graph.CUDA {
	return &graph.CUDA{Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		m := p(c)
		return []graph.Launch{{Product: &m}}, nil
	}}
}

func forwardProduct(c *graph.CUDACall) graph.Product {
	x, w, y := c.In[0], c.In[1], c.Out[0]
	return graph.Product{
		M: x.Rows, N: w.Rows, K: x.Cols, TransB: true,
		A: x.Address, LDA: x.Stride, PadA: x.Pad, TypeA: x.DType,
		B: w.Address, LDB: w.Stride, PadB: w.Pad, TypeB: w.DType,
		C: y.Address, LDC: y.Stride, TypeC: y.DType,
	}
}

func dxProduct(c *graph.CUDACall) graph.Product {
	dy, w, dx := c.In[0], c.In[1], c.Out[0]
	return graph.Product{
		M: dy.Rows, N: w.Cols, K: w.Rows,
		A: dy.Address, LDA: dy.Stride, TypeA: dy.DType,
		B: w.Address, LDB: w.Stride, TypeB: w.DType,
		C: dx.Address, LDC: dx.Stride, TypeC: dx.DType,
	}
}

// added is a product to which z, the last input, is added.
func added(product func(*graph.CUDACall) graph.Product) func(*graph.CUDACall) graph.Product {
	return func(c *graph.CUDACall) graph.Product {
		p, z := product(&graph.CUDACall{In: c.In[:2], Out: c.Out}), c.In[2]
		p.Beta, p.From, p.LDFrom = 1, z.Address, z.Stride
		return p
	}
}

func dwProduct(c *graph.CUDACall) graph.Product {
	dy, x, dw := c.In[0], c.In[1], c.Out[0]
	return graph.Product{
		M: dy.Cols, N: x.Cols, K: x.Rows, TransA: true,
		A: dy.Address, LDA: dy.Stride, TypeA: dy.DType,
		B: x.Address, LDB: x.Stride, TypeB: x.DType,
		C: dw.Address, LDC: dw.Stride, TypeC: dw.DType,
	}
}
