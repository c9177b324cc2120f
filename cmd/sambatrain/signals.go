package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"time"
)

// echo is the time within which another signal counts as a repetition of the first one. A shell
// that ends with its terminal sends SIGHUP a second time, and launchers forward signals that the
// terminal has already sent to every process.
const echo = time.Second

// untilSignal returns a context that ends with the first of stopSignals, for commands that have
// something to finish. The signal is logged unless log is nil, at the latest before stop returns. A
// later signal ends the process as signals normally do.
func untilSignal(parent context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, stopSignals...)
	said := make(chan struct{})
	go func() {
		defer signal.Stop(signals)
		select {
		case <-ctx.Done():
			close(said)
		case s := <-signals:
			stop() // first: a log that nobody reads does not delay saving
			if log != nil {
				log.Info("stopping; another signal ends the process at once", "signal", s)
			}
			close(said)
			time.Sleep(echo)
		}
	}()
	return ctx, func() {
		stop()
		<-said
	}
}
