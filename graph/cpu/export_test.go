package cpu

import "github.com/sambatrain/sambatrain/graph"

// NewPool is the workers alone, and what ends them.
func NewPool(workers int) (p graph.Pool, end func()) {
	own := newPool(workers)
	return own, own.close
}

// ErrClosed is what a closed device's programs return.
var ErrClosed = errClosed
