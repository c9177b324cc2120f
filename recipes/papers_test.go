package recipes_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// budget is how long a group of the paper's models is trained, and at which learning rate.
type budget struct {
	tokens, steps, warmup int64
	batch, seqLen         int
	lr                    float64
}

// Groups of models that are trained in the same way. Steps are tokens / (batch * seqLen), and the
// warm-up is 1% of them, both rounded down.
var (
	b20  = budget{tokens: 20e9, steps: 9_536, warmup: 95, batch: 512, seqLen: 4096, lr: 4e-4}
	b100 = budget{tokens: 100e9, steps: 47_683, warmup: 477, batch: 512, seqLen: 4096, lr: 4e-4}
	b230 = budget{tokens: 230e9, steps: 27_418, warmup: 274, batch: 2048, seqLen: 4096, lr: 6e-4}
	b3t  = budget{tokens: 3.2e12, steps: 381_469, warmup: 3815, batch: 2048, seqLen: 4096, lr: 6e-4}
)

// rows is b with rows of another length, and the same number of tokens per step.
func (b budget) rows(batch, seqLen int) budget {
	b.batch, b.seqLen = batch, seqLen
	return b
}

// paper lists all models of the paper (arXiv 2406.07522) and its code: their numbers of parameters,
// in total and without embeddings, and how they are trained.
var paper = map[string]struct {
	total, nonEmbedding int
	budget
}{
	// Tables 3 and 12.
	"samba-421m":          {421_793_280, 372_641_280, b20},
	"samba-nope-421m":     {421_793_280, 372_641_280, b20},
	"llama-438m":          {438_081_024, 339_777_024, b20},
	"llama-swa-438m":      {438_081_024, 339_777_024, b20},
	"mamba-432m":          {432_804_864, 400_036_864, b20},
	"sliding-gla-438m":    {438_309_120, 340_005_120, b20},
	"sliding-retnet-446m": {445_555_200, 396_403_200, b20},
	"mega-s6-422m":        {422_486_016, 373_334_016, b20},
	"mamba-swa-mlp-400m":  {394_999_296, 345_847_296, b20},
	"mlp2-swa-mlp-417m":   {417_240_576, 368_088_576, b20},
	"samba-1.3b":          {1_330_207_488, 1_256_479_488, b100},
	"samba-nope-1.3b":     {1_330_207_488, 1_256_479_488, b100},
	"llama-1.3b":          {1_347_842_304, 1_274_114_304, b100},
	"llama-swa-1.3b":      {1_347_842_304, 1_274_114_304, b100},
	"mamba-1.3b":          {1_334_740_992, 1_269_204_992, b100},
	"sliding-gla-1.2b":    {1_220_942_592, 1_147_214_592, b100},
	"sliding-retnet-1.4b": {1_411_538_688, 1_337_810_688, b100},
	"mega-s6-1.3b":        {1_329_767_424, 1_256_039_424, b100},
	"mamba-swa-mlp-1.3b":  {1_239_397_632, 1_165_669_632, b100},
	"mlp2-swa-mlp-1.3b":   {1_315_982_592, 1_242_254_592, b100},
	"samba-3.8b":          {3_864_275_712, 3_773_983_488, b3t},
	// Table 11.
	"samba-1.7b":         {1_742_194_688, 1_639_172_096, b230},
	"llama3-1.6b":        {1_641_187_328, 1_435_142_144, b230},
	"mistral-1.6b":       {1_641_187_328, 1_435_142_144, b230},
	"mamba-1.8b":         {1_795_295_232, 1_692_272_640, b230},
	"mamba-swa-mlp-1.6b": {1_655_330_816, 1_552_308_224, b230},
	"mamba-mlp-1.9b":     {1_946_224_640, 1_843_202_048, b230},
	// Table 5.
	"mamba-mlp-full-0-449m":   {449_180_160, 400_028_160, b20},
	"mamba-mlp-full-5-449m":   {449_180_160, 400_028_160, b20},
	"mamba-mlp-full-11-449m":  {449_180_160, 400_028_160, b20},
	"mamba-mlp-full-1-5-443m": {443_702_784, 394_550_784, b20},
	// Table 6.
	"samba-mqa-424m":      {424_152_576, 375_000_576, b20},
	"samba-mqa6-426m":     {426_511_872, 377_359_872, b20},
	"samba-gqa2-426m":     {426_511_872, 377_359_872, b20},
	"samba-gqa4-431m":     {431_230_464, 382_078_464, b20},
	"llama-swa-mqa-414m":  {414_488_064, 316_184_064, b20},
	"llama-swa-mqa6-419m": {419_206_656, 320_902_656, b20},
	"llama-swa-gqa2-419m": {419_206_656, 320_902_656, b20},
	"llama-swa-gqa4-428m": {428_643_840, 330_339_840, b20},
	// Windows, and table 9.
	"samba-window-1k-421m":  {421_793_280, 372_641_280, b20},
	"samba-window-512-421m": {421_793_280, 372_641_280, b20},
	"llama-2k-438m":         {438_081_024, 339_777_024, b20.rows(1024, 2048)},
	"llama-swa-8k-438m":     {438_081_024, 339_777_024, b20.rows(256, 8192)},
	"llama-swa-16k-438m":    {438_081_024, 339_777_024, b20.rows(128, 16384)},
	"llama-swa-32k-438m":    {438_081_024, 339_777_024, b20.rows(64, 32768)},
}

// ours reports whether a recipe is not a model of the paper.
func ours(name string) bool {
	return name == "quickstart" || name == "samba-30m" || strings.HasPrefix(name, "ablation-")
}

func TestPapersModels(t *testing.T) {
	for _, name := range recipes.Names() {
		if _, ok := paper[name]; !ok && !ours(name) {
			t.Errorf("recipe %s is in no table of this test", name)
		}
	}
	for name, want := range paper {
		t.Run(name, func(t *testing.T) {
			r, err := recipes.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			if total, nonEmbedding := parameters(t, &r.Model); total != want.total || nonEmbedding != want.nonEmbedding {
				t.Errorf("%d parameters, %d without embeddings; want %d, %d", total, nonEmbedding, want.total, want.nonEmbedding)
			}
			got := budget{r.Train.Tokens, r.Train.Steps, r.Optim.Warmup(r.Train.Steps), r.Train.BatchSize, r.Data.SeqLen, r.Optim.PeakLR}
			if got != want.budget {
				t.Errorf("trained as %+v, want %+v", got, want.budget)
			}
			asPaper(t, r)
		})
	}
}

// asPaper checks what all models of the paper have in common.
func asPaper(t *testing.T, r *recipes.Recipe) {
	t.Helper()
	o := r.Optim
	if o.Betas[0] != 0.9 || o.Betas[1] != 0.95 || o.Eps != 1e-8 || o.WeightDecay != 0.1 || o.GradClip != 1 {
		t.Errorf("AdamW is %+v", o)
	}
	warmup := o.Warmup(r.Train.Steps)
	for _, at := range []struct {
		step int64
		want float64
	}{{0, 0}, {warmup, o.PeakLR}, {r.Train.Steps, o.PeakLR / 10}} {
		if got := o.LR(at.step, r.Train.Steps); got < at.want*(1-1e-12) || got > at.want*(1+1e-12) {
			t.Errorf("the rate of step %d is %g, want %g", at.step, got, at.want)
		}
	}
	if r.Train.Seed != 3407 || r.Model.NormEps != 1e-5 || r.Eval.Rows != 200 {
		t.Errorf("seed %d, norm_eps %g, eval.rows %d", r.Train.Seed, r.Model.NormEps, r.Eval.Rows)
	}
	// In the paper's code, models with tied embeddings are initialized like Mamba, the others like
	// GPT-NeoX.
	if r.Model.TieEmbeddings != (r.Model.Init == layers.InitMamba) {
		t.Errorf("tied is %v, init is %s", r.Model.TieEmbeddings, r.Model.Init)
	}
}

// TestGroupsAreOneTask: models that the paper compares can be compared by `sambatrain compare`.
func TestGroupsAreOneTask(t *testing.T) {
	for name, b := range map[string]budget{"samba-421m": b20, "samba-1.3b": b100, "samba-1.7b": b230} {
		base, err := recipes.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for other, c := range paper {
			if c.budget != b {
				continue
			}
			r, err := recipes.Load(other)
			if err != nil {
				t.Fatal(err)
			}
			sameButModel(t, base, r)
		}
	}
}

// sameButModel fails if a recipe trains or measures its model differently.
func sameButModel(t *testing.T, base, r *recipes.Recipe) {
	t.Helper()
	different, err := recipes.Differences(base, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range different {
		if d.Key != "name" && d.Key != "run.out" && !strings.HasPrefix(d.Key, "model.") {
			t.Errorf("%s differs from %s in %v", r.Name, base.Name, d)
		}
	}
}

// parameters returns a model's number of parameters, in total and without embeddings.
func parameters(t *testing.T, m *layers.Model) (total, nonEmbedding int) {
	t.Helper()
	b := layers.NewBuilder(layers.Precision{})
	m.Logits(b, b.Input("tokens", graph.Int32, 1, 8))
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.Params() {
		total += p.Shape.Size()
		if p.Name != "model.embeddings.weight" && p.Name != "lm_head.weight" {
			nonEmbedding += p.Shape.Size()
		}
	}
	return total, nonEmbedding
}

// TestAblationsAreOneTask: the ten recipes train on the same tokens and have about the same number
// of parameters, in the proportions of the paper's 1.3B models.
func TestAblationsAreOneTask(t *testing.T) {
	base, err := recipes.Load("ablation-samba")
	if err != nil {
		t.Fatal(err)
	}
	samba, _ := parameters(t, &base.Model)
	for name, like := range map[string]string{
		"ablation-samba": "samba-1.3b", "ablation-samba-nope": "samba-nope-1.3b",
		"ablation-llama": "llama-1.3b", "ablation-llama-swa": "llama-swa-1.3b", "ablation-mamba": "mamba-1.3b",
		"ablation-sliding-gla": "sliding-gla-1.2b", "ablation-sliding-retnet": "sliding-retnet-1.4b",
		"ablation-mega-s6": "mega-s6-1.3b", "ablation-mamba-swa-mlp": "mamba-swa-mlp-1.3b", "ablation-mlp2-swa-mlp": "mlp2-swa-mlp-1.3b",
	} {
		r, err := recipes.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		sameButModel(t, base, r)
		total, _ := parameters(t, &r.Model)
		share, want := float64(total)/float64(samba), float64(paper[like].total)/float64(paper["samba-1.3b"].total)
		if share < want-0.06 || share > want+0.06 {
			t.Errorf("%s has %d parameters, %.3f of Samba's; %s has %.3f", name, total, share, like, want)
		}
	}
}
