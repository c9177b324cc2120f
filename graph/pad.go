package graph

// Products of bfloat16 are fastest where each row begins at a multiple of 16 bytes. Where a
// matrix is not that wide, in mixed precision its rows are laid further apart.

const (
	// rowAlign is 16 bytes, in elements of bfloat16.
	rowAlign = 8
	// minPaddedCols are the columns from which on padding is small beside them.
	minPaddedCols = 64
	// minRowsForCopy are the rows of the other factor from which on a product with a weight
	// takes much longer than a copy of the weight.
	minRowsForCopy = 1024
)

// padding is how many elements rows of so many columns have between them in bfloat16.
func padding(cols int) int {
	if cols < minPaddedCols {
		return 0
	}
	return (rowAlign - cols%rowAlign) % rowAlign
}

// padRows lays the rows of activations in bfloat16 apart, where all that touches them
// takes such rows.
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

// paddedWeight is a copy of a weight's bfloat16, with its rows apart, where op multiplies
// it with enough rows. It is made once for all products of a run.
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
