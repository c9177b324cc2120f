package dist

import (
	"fmt"
	"strings"
)

// firstHost returns the first name of a Slurm host list such as gpu[003-007,012],login.
func firstHost(list string) (string, error) {
	var host strings.Builder
	inside, taken := false, false // of brackets, and of the first number there
	for _, r := range list {
		switch {
		case r == '[' && !inside:
			inside, taken = true, false
		case r == ']' && inside:
			inside = false
		case inside && (r == ',' || r == '-'):
			taken = true
		case r == ',':
			return host.String(), named(list, host.String())
		case !inside || !taken:
			host.WriteRune(r)
		}
	}
	if inside {
		return "", fmt.Errorf("%q has a bracket that does not end", list)
	}
	return host.String(), named(list, host.String())
}

func named(list, host string) error {
	if host == "" {
		return fmt.Errorf("%q is not a list of hosts", list)
	}
	return nil
}
