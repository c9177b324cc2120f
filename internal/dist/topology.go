package dist

import (
	"fmt"
	"net"
	"strconv"
)

// Topology is one process's place among those of a run.
type Topology struct {
	// Rank counts the run's processes from 0; there are Size of them.
	Rank, Size int
	// LocalRank counts the processes on this machine; it selects the GPU.
	LocalRank int
	// Spawn is the number of processes that this one must start here, the first of them with Rank;
	// 0 means that it is one of them itself.
	Spawn int
	// Master is host:port, where rank 0 listens; empty if unknown.
	Master string
	// Secret is known to all processes of the run and to no others; empty if there is none.
	Secret string
	// Source says where this information comes from.
	Source string
}

// Single reports whether the run is one process, which needs no library.
func (t Topology) Single() bool { return t.Size <= 1 }

func (t Topology) String() string {
	if t.Spawn > 0 {
		return fmt.Sprintf("starts ranks %d to %d of %d, from %s", t.Rank, t.Rank+t.Spawn-1, t.Size, t.Source)
	}
	return fmt.Sprintf("rank %d of %d, local rank %d, from %s", t.Rank, t.Size, t.LocalRank, t.Source)
}

// secretVariable is a secret that the launcher gives to all processes.
const secretVariable = "SAMBATRAIN_SECRET"

// Environment looks up a variable, as os.LookupEnv does.
type Environment func(name string) (string, bool)

// Flags are what a command line says about the processes. Negative numbers and empty text mean that
// a flag is not given.
type Flags struct {
	Rank, WorldSize, LocalRank int
	Master                     string
	// PerNode makes this process start others: a number, or auto for one per GPU.
	PerNode string
}

// FlagError is for an invalid command line.
type FlagError struct{ text string }

func (e *FlagError) Error() string { return e.text }

func flagError(format string, args ...any) error { return &FlagError{fmt.Sprintf(format, args...)} }

// NoFlags returns flags that are not given.
func NoFlags() Flags { return Flags{Rank: -1, WorldSize: -1, LocalRank: -1} }

// source is one way in which a launcher assigns ranks. ok is false if it says nothing.
type source func(e Environment, gpus int) (t Topology, ok bool, err error)

// Detect finds this process's place: flags take precedence over SAMBATRAIN_*, followed by torchrun,
// Open MPI, Slurm, Kubeflow's PET_* and an indexed Job of Kubernetes. If none says anything, the
// run is one process. gpus is the number of GPUs that this machine shows.
func Detect(f Flags, e Environment, gpus int) (Topology, error) {
	if _, ok := e(spawned); ok {
		f = NoFlags()
	}
	if f.PerNode != "" {
		return f.node(e, gpus)
	}
	for _, s := range []source{f.source, own, torchrun, openMPI, slurm, kubeflow, indexedJob} {
		t, ok, err := s(e, gpus)
		if err != nil {
			return Topology{}, err
		}
		if !ok {
			continue
		}
		if t.Size < 1 || t.Rank < 0 || t.Rank >= t.Size || t.LocalRank < 0 || t.LocalRank >= t.Size {
			return Topology{}, fmt.Errorf("%s: rank %d, local rank %d of %d processes are invalid", t.Source, t.Rank, t.LocalRank, t.Size)
		}
		if master, ok := e("SAMBATRAIN_MASTER"); ok && f.Master == "" {
			t.Master = master
		}
		t.Secret, _ = e(secretVariable)
		return t, checkMaster(t.Master)
	}
	return Topology{Size: 1, Source: "no launcher"}, nil
}

func checkMaster(master string) error {
	if master == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(master); err != nil {
		return fmt.Errorf("master %q: must be host:port: %w", master, err)
	}
	return nil
}

func (f Flags) source(Environment, int) (Topology, bool, error) {
	if f.Rank < 0 && f.WorldSize < 0 && f.LocalRank < 0 {
		if f.Master != "" {
			return Topology{}, false, flagError("--master: give --rank and --world-size too, or set SAMBATRAIN_MASTER")
		}
		return Topology{}, false, nil
	}
	if f.Rank < 0 || f.WorldSize < 0 {
		return Topology{}, false, flagError("--rank and --world-size: give both or none")
	}
	return Topology{Rank: f.Rank, Size: f.WorldSize, LocalRank: max(f.LocalRank, 0), Master: f.Master, Source: "flags"}, true, nil
}

// own reads what this program tells the processes that it starts itself.
func own(e Environment, _ int) (Topology, bool, error) {
	return numbered(e, "SAMBATRAIN_*", "SAMBATRAIN_RANK", "SAMBATRAIN_WORLD_SIZE", "SAMBATRAIN_LOCAL_RANK")
}

// torchrun also sets LOCAL_RANK. Without it RANK and WORLD_SIZE are PyTorchJob's, which counts
// nodes; that is only the same if a node is one process.
func torchrun(e Environment, gpus int) (Topology, bool, error) {
	const name = "torchrun's variables"
	if _, ok := e("WORLD_SIZE"); !ok {
		return Topology{}, false, nil
	}
	if _, ok := e("LOCAL_RANK"); !ok && gpus > 1 {
		return Topology{}, false, fmt.Errorf("WORLD_SIZE is set, LOCAL_RANK is not, and there are %d GPUs: this looks like a count of nodes (PyTorchJob); start the processes with torchrun or --nproc-per-node, or set SAMBATRAIN_RANK and SAMBATRAIN_WORLD_SIZE", gpus)
	}
	t, ok, err := numbered(e, name, "RANK", "WORLD_SIZE", "LOCAL_RANK")
	if err != nil || !ok {
		return t, ok, err
	}
	// MASTER_PORT itself is used by torchrun's own store.
	t.Master, err = beside(e, "MASTER_ADDR", "MASTER_PORT", 1)
	return t, true, err
}

func openMPI(e Environment, _ int) (Topology, bool, error) {
	return numbered(e, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
}

// slurm applies only to what srun started: a batch script has SLURM_PROCID too.
func slurm(e Environment, _ int) (Topology, bool, error) {
	const name = "Slurm"
	tasks, err := optional(e, name, "SLURM_NTASKS")
	if err != nil {
		return Topology{}, false, err
	}
	if _, ok := e("SLURM_STEP_NUM_TASKS"); !ok {
		if tasks > 1 {
			return Topology{}, false, fmt.Errorf("%s: %d tasks are allocated, but srun did not start this process: write `srun sambatrain ...` in the batch script", name, tasks)
		}
		return Topology{}, false, nil
	}
	t, ok, err := numbered(e, name, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
	if err != nil || !ok {
		return t, ok, err
	}
	nodes, _ := e("SLURM_STEP_NODELIST")
	job, err := optional(e, name, "SLURM_JOB_ID")
	if err != nil || nodes == "" {
		return t, true, err
	}
	host, err := firstHost(nodes)
	if err != nil {
		return t, false, fmt.Errorf("%s: SLURM_STEP_NODELIST: %w", name, err)
	}
	// Jobs that share a node almost always get different ports.
	const firstPort, ports = 20000, 10000
	t.Master = net.JoinHostPort(host, strconv.Itoa(firstPort+max(job, 0)%ports))
	return t, true, nil
}

// kubeflow is Kubeflow Trainer's torch runtime. It counts nodes; PET_NPROC_PER_NODE says how many
// processes each of them starts.
func kubeflow(e Environment, gpus int) (Topology, bool, error) {
	const name = "Kubeflow's PET_*"
	if _, ok := e("PET_NNODES"); !ok {
		return Topology{}, false, nil
	}
	t, ok, err := numbered(e, name, "PET_NODE_RANK", "PET_NNODES", "")
	if err != nil || !ok {
		return t, ok, err
	}
	if t.Master, err = beside(e, "PET_MASTER_ADDR", "PET_MASTER_PORT", 0); err != nil {
		return t, false, err
	}
	each := max(gpus, 1)
	switch v, ok := e("PET_NPROC_PER_NODE"); {
	case !ok:
		each = 1
	case v != "auto" && v != "gpu":
		if each, err = number(name, "PET_NPROC_PER_NODE", v); err != nil || each < 1 {
			return t, false, fmt.Errorf("%s: PET_NPROC_PER_NODE: must be auto, gpu or at least 1, is %q", name, v)
		}
	}
	return t.times(each), true, nil
}

// indexedJob is a Kubernetes Job with completionMode Indexed. The index alone does not say that the
// pods form one run: SAMBATRAIN_NNODES does.
func indexedJob(e Environment, _ int) (Topology, bool, error) {
	const name = "JOB_COMPLETION_INDEX"
	if _, ok := e("SAMBATRAIN_NNODES"); !ok {
		return Topology{}, false, nil
	}
	return numbered(e, name, "JOB_COMPLETION_INDEX", "SAMBATRAIN_NNODES", "")
}

// times converts a node's place to that of the first of its processes.
func (t Topology) times(each int) Topology {
	if each > 1 {
		t.Rank, t.Size, t.Spawn = t.Rank*each, t.Size*each, each
	}
	return t
}

// numbered reads a rank, a size and a local rank, which may be missing.
func numbered(e Environment, name, rank, size, local string) (Topology, bool, error) {
	t := Topology{Source: name}
	for _, v := range []struct {
		name string
		to   *int
		must bool
	}{{rank, &t.Rank, true}, {size, &t.Size, true}, {local, &t.LocalRank, false}} {
		text, ok := e(v.name)
		if !ok && v.must && v.name == rank {
			if _, sized := e(size); sized {
				return t, false, fmt.Errorf("%s: %s is set, %s is not", name, size, rank)
			}
			return t, false, nil
		}
		if !ok && v.must {
			return t, false, fmt.Errorf("%s: %s is set, %s is not", name, rank, size)
		}
		if !ok {
			continue
		}
		n, err := number(name, v.name, text)
		if err != nil {
			return t, false, err
		}
		*v.to = n
	}
	return t, true, nil
}

// optional returns a variable's number, -1 if it is not set.
func optional(e Environment, name, variable string) (int, error) {
	text, ok := e(variable)
	if !ok {
		return -1, nil
	}
	return number(name, variable, text)
}

func number(name, variable, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %s: must be a whole number, is %q", name, variable, text)
	}
	return n, nil
}

// beside returns an address with a port that is `above` higher than the given one.
func beside(e Environment, addr, port string, above int) (string, error) {
	host, ok := e(addr)
	text, okPort := e(port)
	if !ok || !okPort {
		return "", nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n+above > 65535 {
		return "", fmt.Errorf("%s: must be a port, is %q", port, text)
	}
	return net.JoinHostPort(host, strconv.Itoa(n+above)), nil
}
