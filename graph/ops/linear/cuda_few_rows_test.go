package linear

import (
	"strconv"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestTileRows: on an H100 there is a fast kernel for the products of models of many sizes. Two of
// its blocks fit on an SM, and its warps copy ahead of what they multiply; or one block has room
// for all of its weights.
func TestTileRows(t *testing.T) {
	const perBlock, alone = 113 << 10, 116 << 10
	for _, c := range []struct {
		k, cols     int
		norm, gated bool
		blocks      int
	}{
		{1024, 32000, true, false, 2}, {2048, 50304, true, false, 2}, {2048, 151936, true, false, 2}, {4096, 128256, true, false, 2},
		{2048, 8196, true, true, 2}, {2816, 9984, true, true, 2}, {4096, 14336, true, true, 2},
		{2048, 2560, true, false, 1}, {2048, 8192, true, false, 2}, {2816, 11264, true, false, 2},
		{2048, 2048, false, false, 1}, {4096, 2048, false, false, 2},
		{8196, 2048, false, false, 2}, {9984, 2816, false, false, 2}, {14336, 4096, false, false, 2}, {4096, 160, false, false, 2}, {128, 4096, false, false, 1},
	} {
		p := fewRows{
			x: graph.DeviceBuffer{Rows: graph.FewRows, Cols: c.k, Stride: (c.k + 7) / 8 * 8, DType: graph.BFloat16},
			w: graph.DeviceBuffer{Rows: c.cols, Cols: c.k, Stride: c.k, DType: graph.BFloat16, Fixed: true},
			y: graph.DeviceBuffer{Rows: graph.FewRows, Cols: c.cols}, gated: c.gated,
		}
		if c.norm {
			p.x.DType, p.gain = graph.Float32, vectorBytes
		}
		l := graph.Launch{Defines: map[string]string{}}
		if !p.fits() || !p.tileRows(&l, &graph.CUDACall{Multiprocessors: 132, Capability: hopper}) {
			t.Errorf("%+v has no fast kernel", c)
			continue
		}
		number := func(name string) int {
			n, err := strconv.Atoi(l.Defines[name])
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			return n
		}
		room := map[int]int{1: alone, 2: perBlock}[c.blocks]
		if number("BLOCKS") != c.blocks || l.Shared > room || l.Grid[0]%number("SPLIT") != 0 || (number("WARPS")-number("HELPERS"))%number("PARTS") != 0 {
			t.Errorf("%+v: %+v", c, l)
		}
		steps := c.k / number("SPLIT") / number("PARTS") / number("STEP")
		if c.blocks == 1 && number("AHEAD") != steps*number("ROUNDS") {
			t.Errorf("%+v has room for %d of %d steps", c, number("AHEAD"), steps*number("ROUNDS"))
		}
		if number("AHEAD") < min(2, steps) || number("FLIGHT") > number("AHEAD") || steps > number("AHEAD") && number("FLIGHT") == number("AHEAD") {
			t.Errorf("%+v copies %d of %d steps ahead, %d at a time", c, number("AHEAD"), steps, number("FLIGHT"))
		}
	}
}
