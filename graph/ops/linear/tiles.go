package linear

import "github.com/sambatrain/sambatrain/graph"

const tile = 8 // columns of y

// tiles is how tile_rows.cu divides a product. All blocks are resident at once.
type tiles struct {
	resident        int // blocks per SM
	split, clusters int // blocks of a cluster, which share K, and clusters
	each            int // tiles of a cluster, at most
	parts           int // warps of a block that share its slice of K
	workers, rounds int // warps that multiply, and tiles that each of them computes
	helpers         int // warps that load x and add up partial sums
	step            int // elements of K of a stage
	ahead, flight   int // stages of a worker's ring, and those of them that it keeps in flight
	shared          int // bytes of a block's shared memory
}

// tilesOf returns the division of a product; ok is false if a block has no room for it.
func tilesOf(p fewRows, c *graph.CUDACall) (t tiles, ok bool) {
	if c.Capability != hopper {
		return divided(p, c, 2, sharedBytes)
	}
	t, ok = divided(p, c, 2, smBytes/2-apart)
	const half = 116 << 10 // bytes: next to such a block there is room for one of the next kernel's
	if one, fits := divided(p, c, 1, half); fits && one.ahead == one.steps(p) && t.each > 1 {
		return one, true // which requests all of its weights before x is there
	}
	return t, ok
}

const (
	smBytes = 228 << 10 // shared memory of an SM of an H100
	apart   = 3 << 10   // what a block needs in addition to what the kernel asks for
)

// divided divides a product among blocks with room bytes of shared memory, a number of which are resident on an SM.
func divided(p fewRows, c *graph.CUDACall, resident, room int) (t tiles, ok bool) {
	all, whole := ceil(p.y.Cols, tile), p.w.Cols/8*8
	if p.w.Cols%8 != 0 {
		all = 2 * ceil(p.y.Cols, 2*tile)
	}
	t.resident = resident
	t.split, t.clusters = clusters(whole, resident, c)
	t.clusters = max(1, min(t.clusters, all))
	t.each = ceil(all, t.clusters)
	for t.parts = 1; t.parts < 8 && 2*t.parts*t.each <= 10 && whole >= 2*t.parts*t.split*64; {
		t.parts *= 2
	}
	for n := min(6, t.each*t.parts); n <= 12; n++ {
		if r := ceil(t.each*t.parts, n); n%t.parts == 0 && (t.workers == 0 || r*n < t.rounds*t.workers) {
			t.rounds, t.workers = r, n
		}
	}
	t.helpers = 8
	slice := ceil(t.part(p)*t.parts, 64) * 64                   // elements of K per block
	t.shared = 32*(slice+32) + t.workers*p.matrices()*4*16*tile // x and the sums of a round
	if p.gain != 0 {
		t.shared += 4 * slice // the norm's gains
	}
	return t, t.rings(p, room-t.shared)
}

// clusters chooses the number of blocks that share K, and of clusters of them.
func clusters(k, resident int, c *graph.CUDACall) (split, n int) {
	const longest = 704 // the most elements of K of a block
	split = 1
	if c.Capability != hopper {
		return split, c.Multiprocessors
	}
	for split < 8 && k > longest*split {
		split *= 2
	}
	// A cluster must fit within one GPC. With two blocks per SM, an idle H100 has room for 264
	// blocks; clusters of 2, 4 and 8 can use 264, 248 and 240 of them. Fewer are faster, because
	// the clusters must also fit next to the blocks of the preceding kernel.
	most := map[int]int{1: 264, 2: 132, 4: 60, 8: 26}
	if resident == 1 {
		most = map[int]int{1: 132, 2: 66, 4: 30, 8: 15}
	}
	return split, c.Multiprocessors * most[split] / 132
}

// part is the number of elements of K per warp.
func (t tiles) part(p fewRows) int { return ceil(ceil(p.w.Cols/8*8, t.split*t.parts), 32) * 32 }

// steps is the number of stages that a worker multiplies.
func (t tiles) steps(p fewRows) int {
	return t.rounds * p.matrices() * ceil(t.part(p), t.step)
}

// rings chooses the rings of the workers. It returns false if they do not fit into the room that is left.
func (t *tiles) rings(p fewRows, room int) bool {
	const (
		most     = 16       // stages
		inFlight = 54 << 10 // bytes of weights that an SM has in flight
	)
	t.step = 128
	if t.part(p) <= t.step/2 {
		t.step /= 2
	}
	stage := func() int { return t.workers * tile * t.step * 2 }
	if t.step > 64 && room < 2*stage() {
		t.step /= 2
	}
	steps := t.steps(p)
	t.ahead = min(room/stage(), steps, most)
	if t.ahead < min(2, steps) {
		return false
	}
	t.flight = min(t.ahead, max(1, (inFlight+t.resident*stage()/2)/(t.resident*stage())))
	if steps > t.ahead {
		t.flight = min(t.flight, t.ahead-1) // the stage that is being multiplied is not free
	}
	t.shared += t.ahead * stage()
	return true
}
