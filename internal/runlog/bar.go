package runlog

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	barWidth   = 16 // columns of the bar itself; progressbar narrows it on a narrow terminal
	barRefresh = 100 * time.Millisecond

	// An older Windows console prints escape codes literally.
	hasANSI = runtime.GOOS != "windows"
)

// bar is the Console for a terminal: one line that is redrawn at the bottom, below the validations,
// events and notes.
type bar struct {
	mu       sync.Mutex
	w        io.Writer
	total    int
	style    barStyle
	progress *progressbar.ProgressBar
	speed    speed
	step     int       // the last step, which may not have been drawn yet
	status   string    // shown at the right of the bar
	drawnAt  time.Time // zero while the bar isn't on the screen
}

type barStyle struct {
	ansi, color bool
	width       func() int    // columns of the terminal
	every       time.Duration // minimum time between two redraws
}

func newBar(w io.Writer, options ConsoleOptions, style barStyle) *bar {
	return &bar{
		w:     w,
		total: options.Total,
		style: style,
		// progressbar's own estimate counts the steps before a resume as steps of this process.
		progress: style.progress(w, options.Total, progressbar.OptionSetPredictTime(false)),
	}
}

// progress returns the line that counts to total.
func (s barStyle) progress(w io.Writer, total int, more ...progressbar.Option) *progressbar.ProgressBar {
	theme := progressbar.Theme{Saucer: "█", SaucerPadding: " ", BarStart: "|", BarEnd: "|"}
	if s.color {
		theme.BarStart, theme.BarEnd = "|[green]", "[reset]|"
	}
	return progressbar.NewOptions(total, append(more,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetWidth(barWidth),
		progressbar.OptionSetTheme(theme),
		progressbar.OptionEnableColorCodes(s.color),
		progressbar.OptionUseANSICodes(s.ansi),
		progressbar.OptionShowCount(),
		progressbar.OptionShowDescriptionAtLineEnd(),
	)...)
}

func (b *bar) Step(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Kind != KindTrain {
		b.above(describe(r, b.total))
		return
	}
	b.speed.add(r.Train.TokensPerSecond)
	b.step, b.status = min(r.Step, b.total), b.statusOf(r)
	if b.step < b.total && !b.drawnAt.IsZero() && time.Since(b.drawnAt) < b.style.every {
		return
	}
	b.draw()
}

// draw shows the last step. Losing the terminal doesn't stop training, so errors are ignored.
func (b *bar) draw() {
	// In this order: the last step finishes the bar, which then ignores new descriptions.
	b.progress.Describe(b.status)
	_ = b.progress.Set(b.step)
	b.drawnAt = time.Now()
}

// statusOf returns the text at the right of the bar: the loss, and as much else as the terminal has
// columns for, since a line that wraps can't be redrawn.
func (b *bar) statusOf(r Record) string {
	parts := [...]string{
		fmt.Sprintf("loss %.4f", r.Train.Loss),
		fmt.Sprintf("bpb %.4f", r.Train.BitsPerByte),
		Thousands(b.speed.mean()) + " tok/s",
		"eta " + formatETA(b.speed.eta(r, b.total)),
	}
	const loss, bpb, speed, eta = 0, 1, 2, 3
	count := fmt.Sprintf("(%d/%d)", r.Step, b.total)
	left := b.style.width() - len("  99% || ") - barWidth - len(count) - 3
	shown := []int{loss}
	left -= len(parts[loss]) + 2
	for _, i := range [...]int{eta, speed, bpb} { // the most useful first
		if left -= len(parts[i]) + 2; left < 0 {
			break
		}
		shown = append(shown, i)
	}
	slices.Sort(shown)
	var text []string
	for _, i := range shown {
		text = append(text, parts[i])
	}
	return strings.Join(text, "  ")
}

func (b *bar) Note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.above(text)
}

// above writes text in place of the bar and redraws the bar below it.
func (b *bar) above(text string) {
	if b.drawnAt.IsZero() {
		fmt.Fprintln(b.w, text)
		return
	}
	if b.progress.IsFinished() {
		fmt.Fprintf(b.w, "\n%s\n", text)
		b.drawnAt = time.Time{}
		return
	}
	_ = b.progress.Clear()
	if !b.style.ansi { // Clear may have left the end of the bar, which the text would overwrite only partly
		fmt.Fprintf(b.w, "\r%s\r", strings.Repeat(" ", max(b.style.width()-1, 0)))
	}
	fmt.Fprintln(b.w, text)
	b.draw()
}

func (b *bar) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawnAt.IsZero() {
		return
	}
	if !b.progress.IsFinished() {
		b.draw()
	}
	fmt.Fprintln(b.w)
	b.drawnAt = time.Time{}
}
