package recipes

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Duration is a time such as `90s`, `2m` or `1h30m`.
type Duration time.Duration

// UnmarshalYAML reads numbers with their units.
func (d *Duration) UnmarshalYAML(text []byte) error {
	s := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	x, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("must be a time with its unit, such as 90s or 2m, is %s", s)
	}
	*d = Duration(x)
	return nil
}

// UnmarshalJSON reads the same as UnmarshalYAML.
func (d *Duration) UnmarshalJSON(text []byte) error { return d.UnmarshalYAML(text) }

// String returns what UnmarshalYAML reads.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalYAML writes what UnmarshalYAML reads.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalJSON writes the same as MarshalYAML.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }
