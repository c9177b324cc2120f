package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sambatrain/sambatrain/internal/forecast"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// planFlags describe the machine of a forecast.
type planFlags struct {
	gpus, gpu, interconnect            string
	perNode                            int
	memory                             string
	price, contention                  float64
	linkGBs, linkMicros, netGBs, netUS float64
	layout                             forecast.Layout
}

func newPlan() *cobra.Command {
	var flags recipeFlags
	var output outputForm
	var p planFlags
	c := &cobra.Command{
		Use:   "plan RECIPE",
		Short: "Predict speed, memory, days and cost on other GPUs",
		Long: `Predict how fast a recipe trains on a given number of GPUs, how much memory a step takes,
how many days and dollars its tokens cost, and which run.shard and train.micro_batch are
the fastest that fit. Nothing is run: the plan of a step is built as for a GPU, and timed
with op times measured on one and a model of the network. docs/scale.md says what is
modeled and what is not.`,
		Example: `  sambatrain plan samba-1.3b --gpus 64
  sambatrain plan samba-421m --gpus 1-512 --price 1.9
  sambatrain plan samba-3.8b --gpus 8 --interconnect pcie-ib200 --shard full`,
		Args:              exactArgs("RECIPE"),
		ValidArgsFunction: completeRecipe,
		RunE: func(c *cobra.Command, args []string) error {
			counts, err := forecast.Counts(p.gpus)
			if err != nil {
				return &usageError{fmt.Errorf("--gpus: %w", err)}
			}
			m, err := p.machine(c)
			if err != nil {
				return &usageError{err}
			}
			r, err := flags.load(c, args[0])
			if err != nil {
				return err
			}
			plans, err := choosePlans(m, r, counts, p.layout)
			if err != nil {
				return err
			}
			if output == outputMarkdown {
				return plansMarkdown(c.OutOrStdout(), plans)
			}
			return printResult(c, output, plans, func(w io.Writer) error { return plansText(w, m, r, plans) })
		},
	}
	p.add(c)
	flags.add(c)
	flags.addSteps(c)
	outputFlag(c, &output, outputMarkdown)
	return c
}

func (p *planFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.gpus, "gpus", "1-64", "numbers of GPUs: 8, or 1,8,64, or 1-64 for the powers of two in that range")
	f.StringVar(&p.gpu, "gpu", "h100", "kind of GPU: "+strings.Join(forecast.GPUs(), ", ")+", or a file such as internal/forecast/h100.yaml")
	f.StringVar(&p.interconnect, "interconnect", "nvlink-ib400", "interconnect of the GPUs: "+strings.Join(forecast.Interconnects(), ", "))
	f.IntVar(&p.perNode, "gpus-per-node", 0, "GPUs per node (default: the interconnect's)")
	f.Float64Var(&p.linkGBs, "link-bandwidth", 0, "GB/s between the GPUs of a node (default: the interconnect's)")
	f.Float64Var(&p.linkMicros, "link-latency", 0, "microseconds per hop between the GPUs of a node (default: the interconnect's)")
	f.Float64Var(&p.netGBs, "net-bandwidth", 0, "GB/s between nodes, all network cards of a node together (default: the interconnect's)")
	f.Float64Var(&p.netUS, "net-latency", 0, "microseconds per hop between nodes (default: the interconnect's)")
	f.Float64Var(&p.contention, "contention", 0.05, "fraction by which a concurrent collective slows kernels down")
	f.StringVar(&p.memory, "memory", "", "memory of a GPU that a run may use, as in 79GB (default: the GPU's)")
	f.Float64Var(&p.price, "price", 0, "US dollars per GPU hour (default: the GPU's)")
	f.StringVar(&p.layout.Shard, "shard", "", "only consider this run.shard: "+strings.Join(recipes.Shards, ", "))
	offer(c, "interconnect", forecast.Interconnects())
	offer(c, "shard", recipes.Shards)
	f.IntVar(&p.layout.MicroBatch, "micro-batch", 0, "only consider this train.micro_batch")
}

// machine returns what the flags describe.
func (p *planFlags) machine(c *cobra.Command) (*forecast.Machine, error) {
	cal, err := forecast.LoadCalibration(p.gpu)
	if err != nil {
		return nil, err
	}
	net, err := forecast.LoadInterconnect(p.interconnect)
	if err != nil {
		return nil, err
	}
	given := c.Flags().Changed
	for flag, set := range map[string]func(){
		"gpus-per-node":  func() { net.GPUsPerNode = p.perNode },
		"link-bandwidth": func() { net.Link.GBs = p.linkGBs },
		"link-latency":   func() { net.Link.Micros = p.linkMicros },
		"net-bandwidth":  func() { net.Net.GBs = p.netGBs },
		"net-latency":    func() { net.Net.Micros = p.netUS },
		"price":          func() { cal.Price = p.price },
	} {
		if given(flag) {
			set()
		}
	}
	if given("memory") {
		if err := cal.Memory.UnmarshalYAML([]byte(p.memory)); err != nil {
			return nil, fmt.Errorf("--memory: must be an amount with its unit, such as 79GB, is %s", p.memory)
		}
	}
	switch {
	case cal.Memory == 0:
		return nil, fmt.Errorf("--memory: must be an amount with its unit, such as 79GB, is %s", p.memory)
	case !(cal.Price >= 0):
		return nil, fmt.Errorf("--price: must not be below 0, is %v", cal.Price)
	case !(p.contention >= 0):
		return nil, fmt.Errorf("--contention: must not be below 0, is %v", p.contention)
	case p.layout.Shard != "" && !slices.Contains(recipes.Shards, p.layout.Shard):
		return nil, fmt.Errorf("--shard: must be one of %s, is %q", strings.Join(recipes.Shards, ", "), p.layout.Shard)
	case p.layout.MicroBatch < 0:
		return nil, fmt.Errorf("--micro-batch: must be at least 1, is %d", p.layout.MicroBatch)
	}
	return &forecast.Machine{Calibration: cal, Interconnect: net, Contention: p.contention}, net.Validate()
}

// scalePlan is the plan for a number of GPUs.
type scalePlan struct {
	GPUs int `json:"gpus"`
	// Layouts that fit, the fastest first.
	Layouts []*forecast.Forecast `json:"layouts"`
	// Refused says why there is none.
	Refused string `json:"refused,omitempty"`
}

// choosePlans plans for each number of GPUs, several at once. It fails if none has a layout.
func choosePlans(m *forecast.Machine, r *recipes.Recipe, counts []int, l forecast.Layout) ([]scalePlan, error) {
	plans, errs := make([]scalePlan, len(counts)), make([]error, len(counts))
	tell := progress("planning", "counts")
	var mu sync.Mutex
	var done int64
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, n := range counts {
		group.Go(func() error {
			plans[i].GPUs = n
			if plans[i].Layouts, errs[i] = m.Choose(r, n, l); errs[i] != nil {
				plans[i].Refused = strings.ReplaceAll(errs[i].Error(), "\n", "; ")
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			tell(done, int64(len(counts)))
			return nil // what is refused is part of the answer
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if !slices.Contains(errs, nil) {
		return nil, errs[0]
	}
	return plans, nil
}

func plansText(w io.Writer, m *forecast.Machine, r *recipes.Recipe, plans []scalePlan) error {
	cal, net := m.Calibration, m.Interconnect
	fmt.Fprintf(w, "%s: %d rows of %d tokens per step, %d steps, %stokens, in %s\n", r.Name, r.Train.BatchSize, r.Data.SeqLen, r.Train.Steps,
		metric(float64(r.Train.Steps)*float64(r.Train.BatchSize*r.Data.SeqLen)), r.PrecisionText())
	fmt.Fprintf(w, "%s, %.0f GB to plan with, $%.2f per hour; %d per node, %s: %.0f GB/s within, %.0f GB/s between\n", cal.Name, float64(cal.Memory)/1e9, cal.Price,
		net.GPUsPerNode, net.Name, net.Link.GBs, net.Net.GBs)
	fmt.Fprintf(w, "predicted from %s (%s), not measured\n\n", cal.Source, cal.Date)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "GPUs\tshard\tmicro-batch\tper step\trecomputed calls\tmemory/GPU\tstep ms\twaits ms\ttokens/s\tper GPU\tMFU\tdays\tcost $\t")
	for _, p := range plans {
		list := p.Layouts
		if len(plans) > 1 && len(list) > 1 {
			list = list[:1]
		}
		for _, f := range list {
			fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\t%.1f GB\t%s\t%s\t%s\t%s\t%.1f%%\t%s\t%s\t\n", f.GPUs, f.Shard, f.MicroBatch, f.MicroBatches, f.Recomputed,
				float64(f.MemoryBytes)/1e9, runlog.Thousands(f.StepMS), few(f.WaitMS), runlog.Thousands(f.TokensPerSecond), runlog.Thousands(f.TokensPerSecond/float64(f.GPUs)), 100*f.MFU, days(f.Days), runlog.Thousands(f.Cost))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	guessed := map[string]bool{}
	for _, p := range plans {
		if p.Refused != "" {
			fmt.Fprintf(w, "\n%d GPUs: %s\n", p.GPUs, p.Refused)
			continue
		}
		for _, op := range p.Layouts[0].Guessed {
			guessed[op] = true
		}
		if f := p.Layouts[0]; len(plans) == 1 {
			fmt.Fprintf(w, "\nthe fastest: --set run.shard=%s --set train.micro_batch=%d\n", f.Shard, f.MicroBatch)
		}
	}
	return guessedText(w, guessed)
}

// plansMarkdown writes a row for the fastest layout of each number of GPUs.
func plansMarkdown(w io.Writer, plans []scalePlan) error {
	fmt.Fprintln(w, "| GPUs | run.shard | micro-batch | memory per GPU | step, ms | waits, ms | tokens/s | per GPU | MFU | days | cost, $ |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, p := range plans {
		if p.Refused != "" {
			fmt.Fprintf(w, "| %d | %s | | | | | | | | | |\n", p.GPUs, p.Refused)
			continue
		}
		f := p.Layouts[0]
		recomputed := ""
		if f.Recomputed > 0 {
			recomputed = fmt.Sprintf(", %d calls recomputed", f.Recomputed)
		}
		fmt.Fprintf(w, "| %d | %s | %d x %d%s | %.1f GB | %s | %s | %s | %s | %.1f%% | %s | %s |\n", f.GPUs, f.Shard, f.MicroBatches, f.MicroBatch, recomputed,
			float64(f.MemoryBytes)/1e9, runlog.Thousands(f.StepMS), few(f.WaitMS), runlog.Thousands(f.TokensPerSecond), runlog.Thousands(f.TokensPerSecond/float64(f.GPUs)), 100*f.MFU, days(f.Days), runlog.Thousands(f.Cost))
	}
	return nil
}

// few writes one decimal if the number has few digits.
func few(x float64) string {
	if x < 100 {
		return fmt.Sprintf("%.1f", x)
	}
	return runlog.Thousands(x)
}

// days writes two or three digits.
func days(x float64) string {
	if x < 1 {
		return fmt.Sprintf("%.2g", x)
	}
	return few(x)
}

// guessedText names ops whose speed is a guess.
func guessedText(w io.Writer, guessed map[string]bool) error {
	if len(guessed) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nnot measured, taken as other ops of their kind: %s\n", strings.Join(slices.Sorted(maps.Keys(guessed)), ", "))
	return err
}
