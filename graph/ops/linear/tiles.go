package linear

import "github.com/sambatrain/sambatrain/graph"

const (
	tile     = 8 // columns of y
	resident = 2 // blocks that fill an SM
)

// tiles is how tile_rows.cu divides a product. Unless there are very many columns, all blocks are resident at once.
type tiles struct {
	split, clusters int // blocks of a cluster, which share K, and clusters
	parts           int // warps of a block that share its slice of K
	workers, rounds int // warps that multiply, and tiles that each of them computes
	loaders         int // warps that load x
	step            int // elements of K of a stage
	ahead, flight   int // stages of a worker's ring, and those of them that it keeps in flight
	shared          int // bytes of a block's shared memory
}

// tilesOf returns the division of a product; ok is false if a block has no room for it.
func tilesOf(p fewRows, c *graph.CUDACall) (t tiles, ok bool) {
	all, whole := ceil(p.y.Cols, tile), p.w.Cols/8*8
	if p.w.Cols%8 != 0 {
		all = 2 * ceil(p.y.Cols, 2*tile)
	}
	room := t.divide(all, p.matrices(), whole, c)
	t.clusters = max(1, min(t.clusters, all))
	each := ceil(all, t.clusters) // tiles of a cluster
	for t.parts = 1; t.parts < 8 && 2*t.parts*each <= 10 && whole >= 2*t.parts*t.split*64; {
		t.parts *= 2
	}
	for _, n := range []int{8, 9, 10, 11, 12, 7, 6, 5, 4} {
		if r := ceil(each*t.parts, n); n%t.parts == 0 && (t.workers == 0 || r*n < t.rounds*t.workers) {
			t.rounds, t.workers = r, n
		}
	}
	part := ceil(ceil(whole, t.split*t.parts), 32) * 32 // elements of K per warp
	slice := ceil(part*t.parts, 64) * 64                // elements of K per block
	t.loaders = 8
	if p.gain == 0 && slice <= 512 {
		t.loaders = 4 // so few copies don't need more
	}
	t.shared = 32*(slice+32) + each*t.parts*p.matrices()*512 + each*512/t.split // x, the sums of all blocks, and the additional terms of cells
	if p.gain != 0 {
		t.shared += 4 * slice // the norm's gains
	}
	return t, t.rings(part, t.rounds*p.matrices(), room-t.shared)
}

// divide chooses the blocks for a number of tiles, each of one or two matrices, and for K. It returns the
// bytes of shared memory that a block may use.
func (t *tiles) divide(all, matrices, k int, c *graph.CUDACall) (room int) {
	const (
		longest, mostTiles = 704, 64            // the most elements of K, and the most tiles, of a block
		most, apart        = 228 << 10, 3 << 10 // shared memory of an SM, and what a block needs in addition
	)
	room, t.split, t.clusters = sharedBytes, 1, c.Multiprocessors
	if c.Capability == hopper {
		room = most/resident - apart
		for t.split < 8 && k > longest*t.split {
			t.split *= 2
		}
		// A cluster must fit within one GPC. With two blocks per SM, an idle H100 has room for 264
		// blocks; clusters of 2, 4 and 8 can use 264, 248 and 240 of them. Fewer are faster, because
		// the clusters must also fit next to the blocks of the preceding kernel.
		t.clusters = c.Multiprocessors * map[int]int{1: 264, 2: 132, 4: 60, 8: 26}[t.split] / 132
	}
	for ceil(all, t.clusters)*matrices > mostTiles {
		t.clusters *= 2 // in several waves
	}
	return room
}

// rings chooses the rings of the workers, each of which multiplies a part of K a number of times. It
// returns false if they do not fit into the room that is left.
func (t *tiles) rings(part, times, room int) bool {
	const (
		most     = 16       // stages
		inFlight = 36 << 10 // bytes of weights that an SM has in flight
	)
	t.step = 128
	if part <= t.step/2 {
		t.step /= 2
	}
	stage := func() int { return t.workers * tile * t.step * 2 }
	if t.step > 64 && room < 2*stage() {
		t.step /= 2
	}
	steps := times * ceil(part, t.step)
	t.ahead = min(room/stage(), steps, most)
	if t.ahead < min(2, steps) {
		return false
	}
	t.flight = min(t.ahead, max(1, (inFlight+resident*stage()/2)/(resident*stage())))
	if steps > t.ahead {
		t.flight = min(t.flight, t.ahead-1) // the stage that is being multiplied is not free
	}
	t.shared += t.ahead * stage()
	return true
}
