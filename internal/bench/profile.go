package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// Files of a profile.
const (
	ProfileFile = "cpu.pprof"
	TraceFile   = "trace.json"
)

// profile is the folder of a profile; nil means none.
type profile struct {
	dir string
	cpu *os.File
}

// newProfile creates the folder; for "" it returns nil.
func newProfile(dir string) (*profile, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return &profile{dir: dir}, nil
}

// start starts the CPU profile.
func (p *profile) start() error {
	var err error
	if p.cpu, err = os.Create(filepath.Join(p.dir, ProfileFile)); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.cpu); err != nil {
		return errors.Join(fmt.Errorf("profile: %w", err), p.cpu.Close())
	}
	return nil
}

// stop ends the CPU profile.
func (p *profile) stop() error {
	pprof.StopCPUProfile()
	if err := p.cpu.Close(); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}

// of makes the profile of n steps and the trace of one, and returns their files.
func (p *profile) of(s *stepper, n int) ([]string, error) {
	if err := p.start(); err != nil {
		return nil, err
	}
	_, err := s.timed(n, off, nil)
	if err = errors.Join(err, p.stop()); err != nil {
		return nil, err
	}
	if err := s.rec.during(tracing, s.next); err != nil {
		return nil, err
	}
	return p.write(s.rec)
}

// write writes the trace of what was recorded, and returns the profile's files.
func (p *profile) write(r *recorder) ([]string, error) {
	path := filepath.Join(p.dir, TraceFile)
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := errors.Join(writeTrace(f, r), f.Close()); err != nil {
		return nil, fmt.Errorf("profile: %s: %w", path, err)
	}
	return []string{p.cpu.Name(), path}, nil
}
