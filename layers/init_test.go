package layers_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/layers"
)

// moments returns a sample's mean, standard deviation and largest magnitude.
func moments(x []float64) (mean, deviation, largest float64) {
	for _, v := range x {
		mean += v / float64(len(x))
		largest = math.Max(largest, math.Abs(v))
	}
	for _, v := range x {
		deviation += (v - mean) * (v - mean) / float64(len(x))
	}
	return mean, math.Sqrt(deviation), largest
}

// spread fails unless x has mean 0 and the given deviation, within the range of chance.
func spread(t *testing.T, name string, x []float64, deviation float64) {
	t.Helper()
	mean, got, _ := moments(x)
	n := math.Sqrt(float64(len(x)))
	if !(math.Abs(mean) <= 5*deviation/n) {
		t.Errorf("%s: the mean is %g, at a deviation of %g", name, mean, deviation)
	}
	if !(math.Abs(got/deviation-1) <= 5/n) {
		t.Errorf("%s: the deviation is %g, want %g", name, got, deviation)
	}
}

// uniform fails unless x fills [-bound, bound] uniformly.
func uniform(t *testing.T, name string, x []float64, bound float64) {
	t.Helper()
	spread(t, name, x, bound/math.Sqrt(3))
	_, _, largest := moments(x)
	if largest > bound*(1+1e-6) || largest < bound*(1-20/float64(len(x))) {
		t.Errorf("%s: the largest is %g, want the bound %g", name, largest, bound)
	}
}

// normal fails unless x is normal, judged by its deviation and the share of outliers.
func normal(t *testing.T, name string, x []float64, deviation float64) {
	t.Helper()
	spread(t, name, x, deviation)
	for _, c := range []struct{ sigmas, share float64 }{{1, 0.3173}, {2, 0.0455}} {
		far := 0.0
		for _, v := range x {
			if math.Abs(v) > c.sigmas*deviation {
				far++
			}
		}
		n := float64(len(x))
		if !(math.Abs(far/n-c.share) <= 5*math.Sqrt(c.share/n)) {
			t.Errorf("%s: %g of it is beyond %g deviations, want %g", name, far/n, c.sigmas, c.share)
		}
	}
}

func constant(t *testing.T, name string, x []float64, want float64) {
	t.Helper()
	if i := slices.IndexFunc(x, func(v float64) bool { return v != want }); i >= 0 {
		t.Errorf("%s: element %d is %g, want %g", name, i, x[i], want)
	}
}

// values draws a parameter.
func values(t *testing.T, m *layers.Model, name string) []float64 {
	t.Helper()
	var x []float64
	for _, v := range drawn(t, m, name) {
		x = append(x, float64(v))
	}
	return x
}

// TestTimeSteps: the softplus of a time step's bias is the number drawn, and never below 1e-4.
func TestTimeSteps(t *testing.T) {
	m := model("mamba", 1, 61, 64, 48, 4, 4, true)
	for _, p := range params(t, m) {
		if p.Name != "model.layers.0.mixer.dt_proj.bias" {
			continue
		}
		w := make([]float32, p.Shape.Size())
		p.Init(rand.New(rand.NewPCG(1, 2)), w)
		r := rand.New(rand.NewPCG(1, 2))
		for i, x := range w {
			want := 0.001 * math.Pow(100, r.Float64())
			if got := math.Log1p(math.Exp(float64(x))); !(math.Abs(got/want-1) <= 1e-5) {
				t.Fatalf("time step %d is %v, want %v", i, got, want)
			}
		}
		return
	}
	t.Error("there is no bias of time steps")
}

// TestMambaScheme: the initialization of all models but the 438M Llamas. The layers are 1.mamba,
// 2.mlp, 3.swa, 4.mlp, and so on.
func TestMambaScheme(t *testing.T) {
	const d, dff, n, sublayers = 128, 192, 16, 12
	m := model("mamba mlp swa mlp", sublayers/4, 256, d, dff, 4, 2, false)
	at := func(name string) (string, []float64) { return name, values(t, m, name) }
	check := func(f func(*testing.T, string, []float64, float64), name string, parameter float64) {
		t.Helper()
		name, x := at(name)
		f(t, name, x, parameter)
	}
	root := func(in int) float64 { return 1 / math.Sqrt(float64(in)) }
	outputs := 1 / math.Sqrt(sublayers)
	const c, r = 2 * d, d / 16

	check(normal, "model.embeddings.weight", 0.02)
	check(uniform, "lm_head.weight", root(d))
	check(constant, "model.norm_f.weight", 1)
	for _, layer := range []string{"0", "4"} {
		mamba := "model.layers." + layer + ".mixer."
		check(constant, "model.layers."+layer+".norm.weight", 1)
		check(uniform, mamba+"in_proj.weight", root(d))
		check(uniform, mamba+"conv1d.weight", 0.5)
		check(uniform, mamba+"conv1d.bias", 0.5)
		check(uniform, mamba+"x_proj.weight", root(c))
		check(uniform, mamba+"dt_proj.weight", root(r))
		check(constant, mamba+"D", 1)
		check(uniform, mamba+"out_proj.weight", root(c)*outputs)

		name, a := at(mamba + "A_log")
		for i, v := range a {
			if want := math.Log(float64(i%n + 1)); !(math.Abs(v-want) <= 1e-6) {
				t.Errorf("%s: element %d is %g, want %g", name, i, v, want)
				break
			}
		}
		// softplus(bias) is log-uniform from 0.001 to 0.1.
		name, bias := at(mamba + "dt_proj.bias")
		low, high := math.Log(1e-3), math.Log(1e-1)
		for i, v := range bias {
			bias[i] = math.Log(math.Log1p(math.Exp(v))) - (low+high)/2
		}
		uniform(t, "log softplus of "+name, bias, (high-low)/2)
	}
	for _, layer := range []string{"1", "3", "11"} {
		mlp := "model.layers." + layer + ".mixer."
		check(uniform, mlp+"gate_proj.weight", root(d))
		check(uniform, mlp+"up_proj.weight", root(d))
		check(uniform, mlp+"down_proj.weight", root(dff)*outputs)
	}
	swa := "model.layers.2.mixer."
	for _, q := range []string{"q_proj.weight", "k_proj.weight", "v_proj.weight"} {
		check(uniform, swa+q, root(d))
	}
	check(uniform, swa+"o_proj.weight", root(d)*outputs)
}

// TestOutputsAreDividedByTheDepth: weights that write to the stream are divided by the square root
// of residuals per block (1 in Mamba, 3 in Mamba-SWA-MLP, 2 in the others) times blocks, which is
// the number of sublayers. Mega's own output is not divided.
func TestOutputsAreDividedByTheDepth(t *testing.T) {
	const d, dff = 128, 192
	c := 1 / math.Sqrt(2*d)
	for _, f := range []struct {
		pattern           string
		blocks, residuals int
		outputs           map[string]float64 // before the division
	}{
		{"mamba", 5, 1, map[string]float64{"0.mixer.out_proj": c, "4.mixer.out_proj": c}},
		{"mamba swa mlp", 3, 3, map[string]float64{"0.mixer.out_proj": c, "1.mixer.o_proj": 1 / math.Sqrt(d), "8.mixer.down_proj": 1 / math.Sqrt(dff)}},
		{"mlp mlp swa mlp", 4, 2, map[string]float64{"0.mixer.down_proj": 1 / math.Sqrt(dff), "7.mixer.down_proj": 1 / math.Sqrt(dff)}},
		{"mega mlp", 3, 2, map[string]float64{"1.mixer.down_proj": 1 / math.Sqrt(dff)}},
		{"attn mlp", 3, 2, map[string]float64{"0.mixer.o_proj": 1 / math.Sqrt(d), "5.mixer.down_proj": 1 / math.Sqrt(dff)}},
	} {
		sublayers := f.blocks * f.residuals
		repeat := sublayers / len(strings.Fields(f.pattern))
		m := model(f.pattern, repeat, 64, d, dff, 4, 4, true)
		for name, bound := range f.outputs {
			name = "model.layers." + name + ".weight"
			uniform(t, f.pattern+": "+name, values(t, m, name), bound/math.Sqrt(float64(sublayers)))
		}
	}
}

// TestLlamaScheme: the 438M Llamas and the 438M GLA.
func TestLlamaScheme(t *testing.T) {
	const d, blocks = 128, 6
	m := model("attn mlp", blocks, 256, d, 192, 4, 2, false)
	m.Init = layers.InitLlama
	for _, name := range []string{
		"model.embeddings.weight", "lm_head.weight", "model.layers.0.mixer.q_proj.weight", "model.layers.0.mixer.k_proj.weight",
		"model.layers.10.mixer.v_proj.weight", "model.layers.11.mixer.gate_proj.weight", "model.layers.1.mixer.up_proj.weight",
	} {
		normal(t, name, values(t, m, name), math.Sqrt(2/(5.0*d)))
	}
	for _, name := range []string{"model.layers.0.mixer.o_proj.weight", "model.layers.11.mixer.down_proj.weight"} {
		normal(t, name, values(t, m, name), 1/(math.Sqrt(d)*blocks))
	}
	constant(t, "norm", values(t, m, "model.layers.3.norm.weight"), 1)
}

// TestInitDependsOnTheGeneratorAlone: the same generator gives the same numbers each time.
func TestInitDependsOnTheGeneratorAlone(t *testing.T) {
	m := model("mamba mlp swa mlp", 1, 61, 32, 48, 4, 4, true)
	for _, p := range params(t, m) {
		draw := func(seed uint64) []float32 {
			w := make([]float32, p.Shape.Size())
			p.Init(rand.New(rand.NewPCG(seed, 1)), w)
			return w
		}
		first, again, other := draw(1), draw(1), draw(2)
		if !slices.Equal(first, again) {
			t.Errorf("%s: two draws differ", p.Name)
		}
		fixed := slices.Equal(first, other)
		_, deviation, _ := moments(values(t, m, p.Name))
		if fixed && deviation > 0 && p.Name != "model.layers.0.mixer.A_log" {
			t.Errorf("%s: is the same from another seed", p.Name)
		}
		if slices.ContainsFunc(first, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
			t.Errorf("%s: is not finite", p.Name)
		}
	}
}
