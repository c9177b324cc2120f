package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"time"
)

// echo is how long another signal is taken for the first one again. A shell that ends with its
// terminal sends SIGHUP a second time, and launchers pass on what the terminal has sent to all.
const echo = time.Second

// untilSignal is a context that ends with the first of stopSignals, for commands that
// have something to finish; log, unless nil, is told. A later signal ends the process as
// signals do.
func untilSignal(parent context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, stopSignals...)
	go func() {
		defer signal.Stop(signals)
		select {
		case <-ctx.Done():
		case s := <-signals:
			stop()
			if log != nil {
				log.Info("stopping; another signal ends the process at once", "signal", s)
			}
			time.Sleep(echo)
		}
	}()
	return ctx, stop
}
