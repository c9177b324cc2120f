package forecast

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/graph"
)

// Interconnect is how GPUs are connected.
type Interconnect struct {
	Name        string `yaml:"-"`
	GPUsPerNode int    `yaml:"gpus_per_node"`
	// Link is between the GPUs of a node, Net between nodes: all of a node's together.
	Link Path `yaml:"link"`
	Net  Path `yaml:"net"`
}

// Path is one way of a connection: GB/s, and microseconds a hop.
type Path struct {
	GBs    float64 `yaml:"gbs"`
	Micros float64 `yaml:"us"`
}

// LoadInterconnect finds one by its name.
func LoadInterconnect(name string) (*Interconnect, error) {
	all, err := interconnects()
	if err != nil {
		return nil, err
	}
	n, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("--interconnect: must be one of %s, is %q", strings.Join(Interconnects(), ", "), name)
	}
	n.Name = name
	return &n, nil
}

// Interconnects are their names.
func Interconnects() []string {
	all, err := interconnects()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(all))
}

func interconnects() (map[string]Interconnect, error) {
	text, err := files.ReadFile("interconnects.yaml")
	if err != nil {
		return nil, err
	}
	all := map[string]Interconnect{}
	return all, yaml.UnmarshalWithOptions(text, &all, yaml.Strict())
}

// Validate checks what flags have made of it.
func (n *Interconnect) Validate() error {
	switch {
	case n.GPUsPerNode < 1:
		return fmt.Errorf("--gpus-per-node: must be at least 1, is %d", n.GPUsPerNode)
	case !(n.Link.GBs > 0) || !(n.Net.GBs > 0):
		return fmt.Errorf("--link-bandwidth, --net-bandwidth: must be above 0 GB/s, are %v and %v", n.Link.GBs, n.Net.GBs)
	case !(n.Link.Micros >= 0) || !(n.Net.Micros >= 0):
		return fmt.Errorf("--link-latency, --net-latency: must not be below 0 microseconds, are %v and %v", n.Link.Micros, n.Net.Micros)
	}
	return nil
}

// launch is what a collective takes at least: its kernel starts on all GPUs.
const launch = 10e-6

// seconds is how long a collective of so many bytes in all takes among gpus.
//
// Bytes go in rings, one for each GPU of a node, so that all of a node's network cards are
// in use. A reduce-scatter or an all-gather passes (R-1)/R of the bytes by each GPU and
// takes R-1 hops; an all-reduce is both, but NCCL does it in trees where there are many
// nodes: twice the depth in hops.
func (n *Interconnect) seconds(kind graph.CollectiveKind, bytes float64, gpus int) float64 {
	if gpus < 2 {
		return 0
	}
	local := min(gpus, n.GPUsPerNode)
	nodes := (gpus + local - 1) / local
	bandwidth := 1e9 * n.Link.GBs
	hops := float64(gpus-nodes) * n.Link.Micros
	if nodes > 1 {
		bandwidth = min(bandwidth, 1e9*n.Net.GBs)
		hops += float64(nodes) * n.Net.Micros
	}
	moved := bytes * float64(gpus-1) / float64(gpus) / bandwidth
	if kind != graph.AllReduce {
		return launch + moved + 1e-6*hops
	}
	tree := float64(local-1)*n.Link.Micros + math.Ceil(math.Log2(float64(nodes)))*n.Net.Micros
	return launch + 2*moved + 2e-6*min(hops, tree)
}
