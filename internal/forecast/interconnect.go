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
	// Link is between the GPUs of a node, Net between nodes: the total of a node.
	Link Path `yaml:"link"`
	Net  Path `yaml:"net"`
}

// Path is one direction of a connection: GB/s, and microseconds per hop.
type Path struct {
	GBs    float64 `yaml:"gbs"`
	Micros float64 `yaml:"us"`
}

// LoadInterconnect finds an interconnect by its name.
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

// Interconnects returns their names.
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

// Validate checks it after flags were applied.
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

// launch is the minimum time of a collective: its kernel starts on all GPUs.
const launch = 10e-6

// seconds returns the duration of a collective of `bytes` in total among gpus.
//
// Data is sent in rings, one for each GPU of a node, so that all network cards of a node are used.
// A reduce-scatter or an all-gather sends (R-1)/R of the bytes through each GPU in R-1 hops. An
// all-reduce is both, but with many nodes NCCL uses trees: twice the depth in hops.
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
