package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// processFlags say which process of a run this one is, or make it start the processes.
type processFlags struct{ dist.Flags }

func (f *processFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.PerNode, "nproc-per-node", "", "how many processes to start on this machine, each with its own GPU: a number, or auto for one per GPU")
	s.IntVar(&f.Rank, "rank", -1, "rank of this process in the run, if no launcher sets it")
	s.IntVar(&f.WorldSize, "world-size", -1, "number of processes in the run, if no launcher sets it")
	s.IntVar(&f.LocalRank, "local-rank", -1, "rank of this process on its machine, which selects its GPU; 0 if not given")
	s.StringVar(&f.Master, "master", "", "address at which process 0 listens, as host:port")
	for _, name := range []string{"rank", "world-size", "local-rank"} {
		s.Lookup(name).DefValue = "0" // help has no default to show
	}
}

// place returns which process of a run this one is.
func (f *processFlags) place() (dist.Topology, error) {
	place, err := dist.Detect(f.Flags, os.LookupEnv, cuda.Count())
	var wrong *dist.FlagError
	if errors.As(err, &wrong) {
		err = &usageError{err}
	}
	return place, err
}

// childGrace is how long processes may take to end after one of them has failed.
const childGrace = 20 * time.Second

// train runs f as one process of a run on the given device, or starts the processes that do.
func (a *app) train(c *cobra.Command, flags processFlags, device string, output outputForm, f func(train.Options) (*train.Result, error)) error {
	place, err := flags.place()
	if err != nil {
		return err
	}
	if place.Spawn > 0 {
		return spawn(place, cuda.Count(), device)
	}
	o, err := a.trainOptions(c, place)
	if err != nil {
		return err
	}
	result, err := f(o)
	if err != nil {
		return err
	}
	return printRun(c, output, result)
}

// launchedOptions returns the options of a command that leaves starting processes to a launcher.
func (a *app) launchedOptions(c *cobra.Command) (train.Options, error) {
	place, err := dist.Detect(dist.NoFlags(), os.LookupEnv, cuda.Count())
	if err == nil && place.Spawn > 0 {
		err = fmt.Errorf("%s asks for %d processes per node: only pretrain, resume and finetune start them", place.Source, place.Spawn)
	}
	if err != nil {
		return train.Options{}, err
	}
	return a.trainOptions(c, place)
}

func (a *app) trainOptions(c *cobra.Command, place dist.Topology) (train.Options, error) {
	given := resumeFlags(c)
	if place.Rank > 0 && a.logLevel == "info" {
		a.logLevel = "warn" // the first process logs for all
	}
	stderr := whileHeard(os.Stderr)
	lines := runlog.NewLogWriter(stderr)
	log, err := a.loggerTo(lines)
	console := func(o runlog.ConsoleOptions) runlog.Console { return runlog.NewLines(stderr, o) }
	switch {
	case a.logFormat == runlog.JSON:
		console = func(o runlog.ConsoleOptions) runlog.Console { return runlog.NewJSONLines(stderr, o) }
	case term.IsTerminal(int(os.Stderr.Fd())):
		console = func(o runlog.ConsoleOptions) runlog.Console { return runlog.NewConsole(os.Stderr, o) }
	}
	return train.Options{
		Place:       place,
		Log:         log,
		Console:     func(o runlog.ConsoleOptions) runlog.Console { return lines.Over(console(o)) },
		CodeVersion: version(),
		Flags:       given,
		Abort:       func(cause error) { os.Exit(report(cause)) },
	}, err
}

// spawn starts this machine's processes with the command line of this one.
func spawn(place dist.Topology, gpus int, device string) error {
	switch {
	case gpus == 0 || device == recipes.CPU:
		return fmt.Errorf("%d processes per node: only those with a GPU each are started here; on CPUs Open MPI starts them: mpirun -n %d sambatrain ...", place.Spawn, place.Spawn)
	case place.Spawn > gpus:
		return fmt.Errorf("%d processes per node, but %d GPUs are in sight: each needs its own", place.Spawn, gpus)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	slog.Info("processes", "here", place.Spawn, "first", place.Rank, "of", place.Size, "from", place.Source)
	return spawnCommand(place, func() *exec.Cmd { return exec.Command(self, os.Args[1:]...) })
}

// spawnCommand forwards signals, and ends with the processes' own exit code. A stopped process has
// already said so itself.
func spawnCommand(place dist.Topology, command func() *exec.Cmd) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, stopSignals...)
	defer signal.Stop(signals)
	s := dist.Spawner{Signals: signals, Stopped: exitStopped, Lost: exitLost, Grace: childGrace, Command: func() *exec.Cmd {
		c := command()
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		return c
	}}
	err := s.Run(place)
	var child *dist.ChildError
	if errors.As(err, &child) && child.Code == exitStopped {
		err = errors.Join(err, errReported)
	}
	return err
}
