package attention

import "github.com/sambatrain/sambatrain/graph"

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	at := func(position int) map[string]graph.Fill { return within(position, position+1) }
	powers := map[string]graph.Fill{"v": graph.Integers(1, 3)}
	mha := func(heads, headDim, window int) Config { return Config{heads, heads, headDim, window} }
	return []graph.Case{
		{Name: "full", Spec: Spec(mha(2, 8, 0)), Dims: graph.Dims{"B": 2, "T": 9}},
		{Name: "window", Spec: Spec(mha(2, 8, 4)), Dims: graph.Dims{"B": 2, "T": 11}},
		{Name: "odd", Spec: Spec(Config{6, 3, 5, 7}), Dims: graph.Dims{"B": 1, "T": 23}},
		{Name: "two tokens", Spec: Spec(mha(1, 3, 0)), Dims: graph.Dims{"B": 1, "T": 2}},
		// A token that sees only itself has no gradient in q and k. With one channel and powers of
		// two there is no rounding error, which would have no scale to be compared with.
		{Name: "one token", Spec: Spec(mha(2, 1, 0)), Dims: graph.Dims{"B": 2, "T": 1}, Fill: powers},
		{Name: "self only", Spec: Spec(mha(2, 1, 1)), Dims: graph.Dims{"B": 1, "T": 5}, Fill: powers},
		{Name: "window beyond T", Spec: Spec(mha(1, 8, 100)), Dims: graph.Dims{"B": 1, "T": 6}},
		{Name: "window is T", Spec: Spec(mha(1, 8, 6)), Dims: graph.Dims{"B": 1, "T": 6}},
		{Name: "gqa", Spec: Spec(Config{4, 2, 16, 0}), Dims: graph.Dims{"B": 1, "T": 17}},
		{Name: "mqa wide", Spec: Spec(Config{3, 1, 128, 20}), Dims: graph.Dims{"B": 1, "T": 37}},
		{Name: "documents", Spec: SpecByDocument(Config{4, 2, 16, 0}), Dims: graph.Dims{"B": 2, "T": 29},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(12)}},
		{Name: "documents and window", Spec: SpecByDocument(mha(2, 8, 4)), Dims: graph.Dims{"B": 1, "T": 31},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(15)}},
		{Name: "large scores", Spec: Spec(mha(1, 4, 0)), Dims: graph.Dims{"B": 1, "T": 12},
			Fill: map[string]graph.Fill{"q": graph.Uniform(-12, 12), "k": graph.Uniform(-12, 12)}},
		{Name: "blocks", Spec: Spec(mha(1, 4, 0)), Dims: graph.Dims{"B": 1, "T": queryBlock + keyStep + 1}},
		{Name: "window over blocks", Spec: Spec(mha(1, 4, queryBlock+2)), Dims: graph.Dims{"B": 1, "T": 2*queryBlock + 3}},
		{Name: "window within a block", Spec: Spec(Config{2, 1, 4, keyStep - 3}), Dims: graph.Dims{"B": 1, "T": queryBlock + keyStep + 1}},
		// Heads of width 128, for which some GPUs have separate kernels.
		{Name: "wide over tiles", Spec: Spec(Config{2, 1, 128, 150}), Dims: graph.Dims{"B": 1, "T": 333}},
		{Name: "wide documents", Spec: SpecByDocument(Config{2, 1, 128, 150}), Dims: graph.Dims{"B": 1, "T": 333},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(250)}},
		{Name: "documents over tiles", Spec: SpecByDocument(mha(1, 64, 0)), Dims: graph.Dims{"B": 1, "T": 300},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(130)}},
		{Name: "over tiles", Spec: Spec(Config{2, 1, 64, 150}), Dims: graph.Dims{"B": 1, "T": 333}},
		{Name: "widest over tiles", Spec: Spec(Config{3, 1, 256, 70}), Dims: graph.Dims{"B": 1, "T": 150}},
		{Name: "widest documents", Spec: SpecByDocument(Config{1, 1, 256, 0}), Dims: graph.Dims{"B": 1, "T": 201},
			Fill: map[string]graph.Fill{"start": graph.DocumentStarts(130)}},
		{Name: "wide full", Spec: Spec(mha(1, 128, 0)), Dims: graph.Dims{"B": 1, "T": 256}},

		{Name: "start", Spec: CarrySpec(Config{2, 1, 5, 4}), Dims: graph.Dims{"B": 2, "T": 3, "W": 4}, Fill: at(0)},
		{Name: "few keys", Spec: CarrySpec(mha(2, 8, 6)), Dims: graph.Dims{"B": 2, "T": 1, "W": 6}, Fill: at(2)},
		{Name: "decode", Spec: CarrySpec(Config{4, 2, 8, 6}), Dims: graph.Dims{"B": 2, "T": 1, "W": 6}, Fill: at(1001)},
		{Name: "chunk below window", Spec: CarrySpec(Config{2, 2, 8, 16}), Dims: graph.Dims{"B": 1, "T": 7, "W": 16}, Fill: at(29)},
		{Name: "chunk is window", Spec: CarrySpec(mha(1, 8, 7)), Dims: graph.Dims{"B": 1, "T": 7, "W": 7}, Fill: at(10)},
		{Name: "chunk beyond window", Spec: CarrySpec(mha(1, 8, 5)), Dims: graph.Dims{"B": 2, "T": 13, "W": 5}, Fill: at(4)},
		{Name: "self only", Spec: CarrySpec(mha(1, 8, 1)), Dims: graph.Dims{"B": 1, "T": 3, "W": 1}, Fill: at(4)},
		{Name: "cache", Spec: CarrySpec(mha(2, 8, 0)), Dims: graph.Dims{"B": 2, "T": 5, "W": 20}, Fill: at(9)},
		{Name: "cache to the end", Spec: CarrySpec(mha(2, 8, 0)), Dims: graph.Dims{"B": 1, "T": 5, "W": 20}, Fill: at(15)},
		{Name: "blocks", Spec: CarrySpec(mha(1, 4, queryBlock+5)), Dims: graph.Dims{"B": 1, "T": queryBlock + 9, "W": queryBlock + 5}, Fill: at(777)},
		{Name: "below window", Spec: KeepSpec(Config{4, 2, 8, 6}), Dims: graph.Dims{"B": 2, "T": 4, "W": 6}},
		{Name: "beyond window", Spec: KeepSpec(mha(1, 5, 6)), Dims: graph.Dims{"B": 3, "T": 2*6 + 5, "W": 6}},
		{Name: "cache", Spec: KeepSpec(mha(1, 8, 0)), Dims: graph.Dims{"B": 2, "T": slotsPerTask + 3, "W": 2 * slotsPerTask}},
		{Name: "texts of their own", Spec: CarrySpec(mha(2, 8, 6)), Dims: graph.Dims{"B": 5, "T": 2, "W": 6}, Fill: within(0, 12)},
		{Name: "caches of their own", Spec: CarrySpec(mha(2, 8, 0)), Dims: graph.Dims{"B": 4, "T": 5, "W": 20}, Fill: within(0, 16)},
		// Heads of width 64 and 128, whose caches have separate kernels on GPUs.
		{Name: "wide decode", Spec: CarrySpec(Config{8, 2, 64, 600}), Dims: graph.Dims{"B": 2, "T": 1, "W": 600}, Fill: within(0, 1300)},
		{Name: "wide decode, few keys", Spec: CarrySpec(Config{2, 1, 128, 300}), Dims: graph.Dims{"B": 3, "T": 1, "W": 300}, Fill: within(0, 90)},
		{Name: "wide chunk", Spec: CarrySpec(Config{4, 2, 64, 100}), Dims: graph.Dims{"B": 1, "T": 150, "W": 100}, Fill: at(1234)},
		{Name: "wide chunk below window", Spec: CarrySpec(mha(1, 128, 700)), Dims: graph.Dims{"B": 2, "T": 70, "W": 700}, Fill: within(0, 1500)},
		{Name: "long chunk", Spec: CarrySpec(mha(2, 128, 300)), Dims: graph.Dims{"B": 2, "T": 257, "W": 300}, Fill: within(0, 700)},
		{Name: "first long chunk", Spec: CarrySpec(Config{2, 1, 64, 200}), Dims: graph.Dims{"B": 1, "T": 260, "W": 200}, Fill: at(0)},
		{Name: "long chunk, cache", Spec: CarrySpec(Config{4, 1, 64, 0}), Dims: graph.Dims{"B": 2, "T": 270, "W": 400}, Fill: within(0, 130)},
		{Name: "long chunk, widest", Spec: CarrySpec(Config{3, 1, 256, 90}), Dims: graph.Dims{"B": 1, "T": 256, "W": 90}, Fill: within(0, 200)},
		{Name: "wide cache", Spec: CarrySpec(Config{4, 1, 64, 0}), Dims: graph.Dims{"B": 2, "T": 33, "W": 320}, Fill: within(0, 287)},
		{Name: "16 texts", Spec: CarrySpec(Config{32, 4, 64, 100}), Dims: graph.Dims{"B": 16, "T": 1, "W": 100}, Fill: within(0, 250)},
		{Name: "many texts", Spec: CarrySpec(Config{2, 1, 64, 40}), Dims: graph.Dims{"B": 121, "T": 1, "W": 40}, Fill: within(0, 90)},
		{Name: "widest", Spec: CarrySpec(Config{3, 1, 256, 40}), Dims: graph.Dims{"B": 1, "T": 21, "W": 40}, Fill: at(77)},

		{Name: "421m", Spec: Spec(mha(12, 128, 2048)), Dims: graph.Dims{"B": 1, "T": 4096}, Bench: true},
		{Name: "421m micro-batch 8", Spec: Spec(mha(12, 128, 2048)), Dims: graph.Dims{"B": 8, "T": 4096}, Bench: true},
		{Name: "30m", Spec: Spec(mha(4, 128, 512)), Dims: graph.Dims{"B": 1, "T": 1024}, Bench: true},
		{Name: "heads of 64", Spec: Spec(mha(4, 64, 256)), Dims: graph.Dims{"B": 1, "T": 1024}, Bench: true},
		{Name: "1.7b micro-batch 4", Spec: Spec(Config{32, 4, 64, 2048}), Dims: graph.Dims{"B": 4, "T": 4096}, Bench: true},
		{Name: "3.8b", Spec: Spec(Config{11, 1, 256, 2048}), Dims: graph.Dims{"B": 1, "T": 4096}, Bench: true},
		{Name: "421m decode", Spec: CarrySpec(mha(12, 128, 2048)), Dims: graph.Dims{"B": 1, "T": 1, "W": 2048}, Fill: at(5000), Bench: true},
		{Name: "421m chunk", Spec: CarrySpec(mha(12, 128, 2048)), Dims: graph.Dims{"B": 1, "T": 4096, "W": 2048}, Fill: at(5000), Bench: true},
		{Name: "1.7b chunk", Spec: CarrySpec(Config{32, 4, 64, 2048}), Dims: graph.Dims{"B": 1, "T": 512, "W": 2048}, Fill: at(5000), Bench: true},
		{Name: "1.7b decode", Spec: CarrySpec(Config{32, 4, 64, 2048}), Dims: graph.Dims{"B": 16, "T": 1, "W": 2048}, Fill: at(5000), Bench: true},
	}
}

// within fills the positions of the sequences with integers from [low, high).
func within(low, high int) map[string]graph.Fill {
	return map[string]graph.Fill{"pos": graph.Integers(low, high)}
}

// RotaryCases are the cases of RotarySpec and RotaryCarrySpec: rotations of heads of each width,
// for whole sequences and from a given position on.
func RotaryCases(rotation, carry func(headDim int) Rotation) []graph.Case {
	spec := func(c Config) *graph.Spec { return RotarySpec(c, rotation(c.HeadDim)) }
	token := func(c Config) *graph.Spec { return RotaryCarrySpec(c, carry(c.HeadDim)) }
	return []graph.Case{
		{Name: "rotary", Spec: spec(Config{4, 2, 6, 0}), Dims: graph.Dims{"B": 2, "T": 23}},
		{Name: "rotary, narrow", Spec: spec(Config{2, 2, 64, 40}), Dims: graph.Dims{"B": 1, "T": 90}},
		{Name: "rotary, wide", Spec: spec(Config{2, 1, 128, 70}), Dims: graph.Dims{"B": 2, "T": 150}},
		{Name: "rotary, widest", Spec: spec(Config{2, 1, 256, 70}), Dims: graph.Dims{"B": 1, "T": 140}},
		{Name: "421m micro-batch 8, rotary", Spec: spec(Config{12, 12, 128, 2048}), Dims: graph.Dims{"B": 8, "T": 4096}, Bench: true},

		{Name: "rotary token", Spec: token(Config{4, 2, 6, 5}), Dims: graph.Dims{"B": 3, "T": 1, "W": 5}, Fill: within(0, 12)},
		{Name: "rotary token, narrow", Spec: token(Config{8, 2, 64, 600}), Dims: graph.Dims{"B": 2, "T": 1, "W": 600}, Fill: within(500, 1300)},
		{Name: "rotary token, begin", Spec: token(Config{2, 2, 64, 200}), Dims: graph.Dims{"B": 1, "T": 1, "W": 200}, Fill: within(0, 1)},
		{Name: "rotary token, wide", Spec: token(Config{2, 1, 128, 0}), Dims: graph.Dims{"B": 3, "T": 1, "W": 1500}, Fill: within(0, 1500)},
		{Name: "rotary token, 16 texts", Spec: token(Config{32, 4, 64, 100}), Dims: graph.Dims{"B": 16, "T": 1, "W": 100}, Fill: within(0, 250)},
		{Name: "rotary token, 16 long texts", Spec: token(Config{32, 4, 64, 1100}), Dims: graph.Dims{"B": 16, "T": 1, "W": 1100}, Fill: within(0, 2500)},
		{Name: "rotary token, heads of their own", Spec: token(Config{12, 12, 128, 60}), Dims: graph.Dims{"B": 12, "T": 1, "W": 60}, Fill: within(0, 150)},
		{Name: "rotary token, more heads of their own", Spec: token(Config{25, 25, 128, 0}), Dims: graph.Dims{"B": 11, "T": 1, "W": 100}, Fill: within(0, 100)},
		{Name: "rotary token, 16 heads share keys", Spec: token(Config{32, 2, 128, 0}), Dims: graph.Dims{"B": 2, "T": 1, "W": 300}, Fill: within(0, 300)},
		{Name: "rotary token, widest of one key head", Spec: token(Config{12, 1, 256, 90}), Dims: graph.Dims{"B": 2, "T": 1, "W": 90}, Fill: within(0, 200)},
		{Name: "rotary token, widest", Spec: token(Config{40, 2, 256, 40}), Dims: graph.Dims{"B": 1, "T": 1, "W": 40}, Fill: within(0, 90)},
		{Name: "1.7b token", Spec: token(Config{32, 4, 64, 2048}), Dims: graph.Dims{"B": 1, "T": 1, "W": 2048}, Fill: within(5000, 5001), Bench: true},
	}
}
