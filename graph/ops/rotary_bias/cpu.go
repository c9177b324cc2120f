package rotary_bias

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// forward takes the products of alpha and beta out of the sum: with a and b their halves,
//
//	bias[n] = sum_c cos(n w_c) (a1 b1 + a2 b2) + sin(n w_c) (a1 b2 - a2 b1)
//
// which is a row of the table times one vector.
func forward(c *graph.CPUCall) func() {
	alpha, beta, bias, products := c.In[0].F32, c.In[1].F32, c.Out[0].F32, c.Workspace
	rows, half := newTable(c.Dims), len(alpha)/2
	return func() {
		for i := range half {
			a1, a2, b1, b2 := alpha[i], alpha[half+i], beta[i], beta[half+i]
			products[i], products[half+i] = a1*b1+a2*b2, a1*b2-a2*b1
		}
		for n := range bias {
			bias[n] = simd.Dot(rows.at(n), products)
		}
	}
}

func backward(c *graph.CPUCall) func() {
	alpha, beta, dbias, sums := c.In[0].F32, c.In[1].F32, c.In[2].F32, c.Workspace
	dalpha, dbeta := c.Out[0].F32, c.Out[1].F32
	rows, half := newTable(c.Dims), len(alpha)/2
	return func() {
		clear(sums)
		for n, x := range dbias {
			simd.Axpy(x, rows.at(n), sums)
		}
		for i := range half {
			a1, a2, b1, b2, cos, sin := alpha[i], alpha[half+i], beta[i], beta[half+i], sums[i], sums[half+i]
			dalpha[i], dalpha[half+i] = b1*cos+b2*sin, b2*cos-b1*sin
			dbeta[i], dbeta[half+i] = a1*cos-a2*sin, a2*cos+a1*sin
		}
	}
}

// table holds a row [cos, sin] of D/2 angles each for every distance.
type table struct {
	width  int
	angles []float32
}

// newTable computes angles in float64: float32 would be too imprecise for large distances.
func newTable(d graph.Dims) table {
	half := d["D"] / 2
	t := table{d["D"], make([]float32, d["W"]*d["D"])}
	for c := range half {
		w := frequency(c, half)
		for n := range d["W"] {
			sin, cos := math.Sincos(float64(n) * w)
			t.at(n)[c], t.at(n)[half+c] = float32(cos), float32(sin)
		}
	}
	return t
}

func (t table) at(n int) []float32 { return t.angles[n*t.width : (n+1)*t.width] }
