package data

import (
	"fmt"
	"math"
	"math/bits"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

// WeightedSource is one source of `data.mixture`.
type WeightedSource struct {
	// Name is its name in logs.
	Name string `yaml:"name"`

	// Weight, divided by the sum of all weights, is the fraction of training rows that come from
	// it.
	Weight float64 `yaml:"weight"`

	// Shards and Text are as in a Config.
	Shards string     `yaml:"shards"`
	Text   TextConfig `yaml:"text"`
}

// namedConfig is a source, as the Config that it would be alone.
type namedConfig struct {
	name   string
	weight float64
	config Config
}

// sources returns the sources of a mixture, or c alone.
func (c Config) sources() []namedConfig {
	if len(c.Mixture) == 0 {
		return []namedConfig{{weight: 1, config: c}}
	}
	list := make([]namedConfig, len(c.Mixture))
	for i, s := range c.Mixture {
		one := c
		one.Mixture, one.Shards, one.Text = nil, s.Shards, s.Text
		if one.Text.JSONLField == "" {
			one.Text.JSONLField = DefaultConfig().Text.JSONLField
		}
		// Otherwise sources of equal size would be read in the same order.
		one.Seed = mix64(c.Seed ^ mix64(uint64(i)))
		list[i] = namedConfig{s.Name, s.Weight, one}
	}
	return list
}

// Holder is the beginning of an error about what the shards hold: the key, the folder and "holds",
// or the key of a mixture and "its sources hold".
func (c Config) Holder() string {
	if len(c.Mixture) > 0 {
		return "data.mixture: its sources hold"
	}
	return fmt.Sprintf("data.shards: %s holds", c.Shards)
}

// inSource names the source that an error is about.
func (c Config) inSource(i int, err error) error {
	if len(c.Mixture) == 0 {
		return err
	}
	return fmt.Errorf("data.mixture[%d] (%s): %w", i, c.Mixture[i].Name, err)
}

// isLength reports whether the name is that of a row length in metrics.jsonl, as in 2x.
func isLength(name string) bool {
	digits, ok := strings.CutSuffix(name, "x")
	_, err := strconv.Atoi(digits)
	return ok && err == nil
}

func (c Config) validateMixture() error {
	if c.Shards != "" || c.Text.selects() {
		return fmt.Errorf("data.mixture: replaces data.shards and data.text; move them into a source of it")
	}
	names, shards, sum := map[string]bool{}, map[string]bool{}, 0.0
	for i, s := range c.Mixture {
		sum += s.Weight
		switch {
		case s.Name == "":
			return fmt.Errorf("data.mixture[%d].name: is empty: name the source", i)
		case strings.ContainsFunc(s.Name, unicode.IsControl):
			return fmt.Errorf("data.mixture[%d].name: %q holds a control character, and logs have it in their lines: choose another", i, s.Name)
		case isLength(s.Name):
			return fmt.Errorf("data.mixture[%d].name: %q is what results at that row length are called (val_loss@%s): choose another", i, s.Name, s.Name)
		case names[s.Name]:
			return fmt.Errorf("data.mixture[%d].name: %q is there twice", i, s.Name)
		case s.Shards == "":
			return fmt.Errorf("data.mixture[%d].shards: is empty: name the folder of token shards", i)
		case shards[filepath.Clean(s.Shards)]:
			return fmt.Errorf("data.mixture[%d].shards: %s is there twice: add up the weights", i, s.Shards)
		case !(s.Weight > 0) || math.IsInf(s.Weight, 0):
			return fmt.Errorf("data.mixture[%d].weight: must be above 0, is %v", i, s.Weight)
		case math.IsInf(sum, 0):
			return fmt.Errorf("data.mixture[%d].weight: the sum of the weights up to this one is infinite: lower them", i)
		}
		names[s.Name], shards[filepath.Clean(s.Shards)] = true, true
	}
	for i, s := range c.sources() {
		if err := s.config.Validate(); err != nil {
			return c.inSource(i, err)
		}
	}
	return nil
}

// mixture determines which part a sample comes from, and which sample of that part it is: a pure
// function without state.
//
// The parts form a chain. Of the samples that reach a link, its part takes those at which its
// quota, a line through the samples with the slope of its share, passes a whole number; the others
// go on to the next link. Each part's samples are therefore in order and evenly spread, and after n
// samples their number is n times the part's share, to within one for each link.
type mixture struct {
	links []link
}

// link takes samples in [0, end), or all if end is 0.
type link struct {
	share, phase uint64 // 1 is whole
	end          int64
}

const (
	wholeBits = 32
	whole     = uint64(1) << wholeBits
)

// byWeight is a mixture without end.
func byWeight(weights []float64, seed uint64) mixture {
	var m mixture
	rest := 0.0
	for i := len(weights) - 1; i >= 0; i-- {
		rest += weights[i]
		share := uint64(math.Round(weights[i] / rest * float64(whole)))
		phase := mix64(seed^mix64(uint64(i)+streamMixture<<32)) % whole
		m.links = append([]link{{share: min(max(share, 1), whole), phase: phase}}, m.links...)
	}
	return m
}

// inOrder is each part's blocks once, one part after the other, and then again.
func inOrder(parts []*splitReader) mixture {
	var m mixture
	for _, p := range parts {
		m.links = append(m.links, link{end: p.order.blocks})
	}
	return m
}

// due returns how many of the first n samples that reach the link it takes.
func (l link) due(n int64) int64 {
	if l.share == whole {
		return n
	}
	high, low := bits.Mul64(uint64(n), l.share)
	low, carry := bits.Add64(low, l.phase, 0)
	high += carry
	return int64(high<<(64-wholeBits) | low>>wholeBits)
}

func (m mixture) locate(sample int64) (part int, local int64) {
	if m.links[0].end > 0 {
		return m.locateInOrder(sample)
	}
	for i, l := range m.links {
		before := l.due(sample)
		if i == len(m.links)-1 || l.due(sample+1) > before {
			return i, before
		}
		sample -= before
	}
	return 0, sample // no part: not reached
}

func (m mixture) locateInOrder(sample int64) (part int, local int64) {
	var total int64
	for _, l := range m.links {
		total += l.end
	}
	epoch, sample := sample/total, sample%total
	for sample >= m.links[part].end {
		sample -= m.links[part].end
		part++
	}
	return part, epoch*m.links[part].end + sample
}

// count returns how many of the first n samples come from a part.
func (m mixture) count(part int, n int64) int64 {
	for _, l := range m.links[:part] {
		n -= l.due(n)
	}
	return m.links[part].due(n)
}

// sample inverts locate, for a mixture by weight: it returns the sample that is number local of a
// part.
func (m mixture) sample(part int, local int64) int64 {
	if len(m.links) == 1 {
		return local
	}
	// It is the last of the smallest number of samples of which more than local come from the part.
	end := local + 1
	for m.count(part, end) <= local {
		end *= 2
	}
	return local + int64(sort.Search(int(end-local), func(n int) bool { return m.count(part, local+1+int64(n)) > local }))
}

// mixtureFingerprint identifies the parts' tokens and their weights.
func mixtureFingerprint(parts []*splitReader, weights []float64) string {
	var all strings.Builder
	for i, p := range parts {
		fmt.Fprintf(&all, "%s %v\n", p.manifest.Fingerprint(), weights[i])
	}
	return checksum([]byte(all.String()))
}
