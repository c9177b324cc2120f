package recipes

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Bytes is an amount of memory, such as `32GB`, `512MiB`, or `auto`, which is 0.
type Bytes int64

// units of an amount; it is written with the first one that divides it.
var units = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

var amount = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B|B)$`)

// UnmarshalYAML reads auto, or a number with its unit.
func (b *Bytes) UnmarshalYAML(text []byte) error {
	s := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	if s == Auto {
		*b = 0
		return nil
	}
	m := amount.FindStringSubmatch(s)
	if m == nil {
		return fmt.Errorf("must be auto or an amount with its unit, such as 32GB or 512MiB, is %s", s)
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return err
	}
	for _, u := range units {
		if u.name == m[2] {
			x *= float64(u.size)
		}
	}
	if x < 1 || x > math.MaxInt64/2 {
		return fmt.Errorf("must be at least 1B and fit in 63 bits, is %s", s)
	}
	*b = Bytes(x)
	return nil
}

// UnmarshalJSON reads the same as UnmarshalYAML.
func (b *Bytes) UnmarshalJSON(text []byte) error { return b.UnmarshalYAML(text) }

// String returns what UnmarshalYAML reads.
func (b Bytes) String() string {
	if b == 0 {
		return Auto
	}
	for _, u := range units {
		if int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalYAML writes what UnmarshalYAML reads.
func (b Bytes) MarshalYAML() (any, error) { return b.String(), nil }

// MarshalJSON writes the same as MarshalYAML.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }
