package graph

// Products of bfloat16 are fastest when each row begins at a multiple of 16 bytes. In mixed
// precision the rows of other matrices are padded.

const (
	// rowAlign is 16 bytes, in elements of bfloat16.
	rowAlign = 8
	// minPaddedCols is the number of columns from which padding is small in comparison.
	minPaddedCols = 64
	// minRowsForCopy is the number of rows of the other input from which a product with a weight
	// takes much longer than copying the weight.
	minRowsForCopy = 1024
)

// padding is the number of elements between bfloat16 rows of this many columns.
func padding(cols int) int {
	if cols < minPaddedCols {
		return 0
	}
	return (rowAlign - cols%rowAlign) % rowAlign
}

// padRows pads the rows of bfloat16 activations where every op that reads or writes them accepts
// strided rows.
func (c *compiler) padRows() {
	dense := map[*storage]bool{}
	for _, s := range c.steps {
		for k, v := range s.in {
			dense[v.st] = dense[v.st] || !s.In[k].Strided
		}
		for k, v := range s.out {
			dense[v.st] = dense[v.st] || !s.Out[k].Strided
		}
	}
	for st, dense := range dense {
		if !dense && st.region == Arena && st.dtype == BFloat16 {
			st.pad = padding(st.cols)
		}
	}
}

// paddedWeight is a copy of a bfloat16 weight with padded rows, if op multiplies it with enough
// rows to pay for it. All products of a run share the copy.
func (c *compiler) paddedWeight(op *call, w *value) (*value, error) {
	if padding(w.st.cols) == 0 || op.In[0].Shape.Rows() < minRowsForCopy {
		return w, nil
	}
	if copied := c.padded[w.st.offset]; copied != nil {
		return copied, nil
	}
	matrix := Shape{1, w.shape.Rows(), w.shape.Cols()}
	to := newStorage(Arena, matrix, BFloat16)
	to.pad = padding(to.cols)
	res, err := c.b.round.Resolve([]Shape{matrix})
	if err != nil {
		return nil, err
	}
	c.steps = append(c.steps, pending{
		call: &call{Resolved: res, path: op.path, backward: op.backward, block: op.block},
		in:   []*value{w.st.hold(matrix, w.col)}, out: []*value{to.hold(matrix, 0)},
	})
	c.padded[w.st.offset] = to.hold(w.shape, 0)
	return c.padded[w.st.offset], nil
}
