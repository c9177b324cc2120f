package runlog

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// speedDecay is the fraction of the mean speed that is kept at each step: the mean covers about the
// last 20 steps, long enough to be readable, short enough to follow a machine that becomes busy.
const speedDecay = 0.95

// speed is an exponentially smoothed number of tokens per second.
type speed struct {
	sum, weight float64
}

func (s *speed) add(tokensPerSecond float64) {
	if math.IsNaN(tokensPerSecond) || math.IsInf(tokensPerSecond, 0) {
		return // the step was too short for the clock
	}
	s.sum = speedDecay*s.sum + (1-speedDecay)*tokensPerSecond
	s.weight = speedDecay*s.weight + (1 - speedDecay)
}

// mean divides by the sum of the weights, as Adam's bias correction does, so that the mean of the
// first steps isn't pulled towards zero.
func (s *speed) mean() float64 {
	if s.weight == 0 {
		return 0
	}
	return s.sum / s.weight
}

// eta is the time that the steps after r take at the mean speed, not counting validations and
// checkpoints; ok is false if it is unknown.
func (s *speed) eta(r Record, total int) (eta time.Duration, ok bool) {
	if r.Step <= 0 || total < r.Step || s.mean() <= 0 {
		return 0, false
	}
	// Every step has the same number of tokens.
	tokens := float64(r.Train.Tokens) / float64(r.Step) * float64(total-r.Step)
	seconds := tokens / s.mean()
	if seconds > 100*365*24*3600 { // time.Duration ends at 292 years
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// formatETA writes the two largest units: 42s, 1m02s, 2h05m, 3d04h; "?" if the time is unknown.
func formatETA(d time.Duration, ok bool) string {
	if !ok {
		return "?"
	}
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/(24*3600), s/3600%24)
}

// stepOf writes "step  12/600", with the step padded to the total's width so that lines align.
func stepOf(step, total int) string {
	if total <= 0 {
		return fmt.Sprintf("step %d", step)
	}
	return fmt.Sprintf("step %*d/%d", len(strconv.Itoa(total)), step, total)
}

// Thousands writes x without decimals, with a comma between groups of three digits.
func Thousands(x float64) string {
	digits := strconv.FormatFloat(math.Round(math.Abs(x)), 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if x <= -0.5 {
		return "-" + digits
	}
	return digits
}
