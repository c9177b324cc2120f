package runlog

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// Console is what a person sees of a run during training. Its methods may be called from several
// goroutines.
type Console interface {
	// Step shows a record. All validations and events are shown, and training steps as often as the
	// console has room for them.
	Step(r Record)
	// Note shows a line of text.
	Note(text string)
	// Close leaves the cursor on a new line. The console must not be used afterwards.
	Close()
}

// ConsoleOptions describes the run that a Console shows.
type ConsoleOptions struct {
	Total    int // optimizer steps of the whole run, including those before a resume
	LogEvery int // if it is not a terminal: steps between two lines, at least 1
}

// NewConsole returns the console for f, which is os.Stderr outside tests: a progress bar on a
// terminal, plain lines elsewhere (a file, a pipe, a terminal with TERM=dumb). The bar has color
// unless the environment variable NO_COLOR is set (https://no-color.org).
func NewConsole(f *os.File, options ConsoleOptions) Console {
	if !wantsBar(term.IsTerminal(int(f.Fd())), options.Total, os.Getenv) {
		return NewLines(f, options)
	}
	return newBar(f, options, styleOf(f))
}

// styleOf returns how a bar is drawn on the terminal f.
func styleOf(f *os.File) barStyle {
	width := func() int {
		w, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80
		}
		return w
	}
	return barStyle{
		ansi:  hasANSI,
		color: hasANSI && os.Getenv("NO_COLOR") == "",
		width: width,
		every: barRefresh,
	}
}

func wantsBar(terminal bool, total int, getenv func(string) string) bool {
	return terminal && total > 0 && getenv("TERM") != "dumb"
}

// describe is the line for a validation or an event.
func describe(r Record, total int) string {
	head := stepOf(r.Step, total)
	switch r.Kind {
	case KindVal:
		line := fmt.Sprintf("%s  val_loss %.4f  val_bpb %.4f", head, r.Val.Loss, r.Val.BitsPerByte)
		for _, at := range r.Val.Longer {
			line += fmt.Sprintf("  @%s %.4f", lengthName(at.Times), at.Loss)
		}
		for _, of := range r.Val.BySource {
			line += fmt.Sprintf("  @%s %.4f", of.Name, of.Loss)
		}
		for _, source := range r.Val.Sources {
			line += fmt.Sprintf("  %s %.3g", keyOf(epochsKey, source.Name), source.Epochs)
		}
		return line
	case KindEvent:
		return strings.TrimRight(fmt.Sprintf("%s  %s  %s", head, r.Event.Name, r.Event.Detail), " ")
	}
	return head
}
