package dist

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDetect(t *testing.T) {
	type vars = map[string]string
	torch := vars{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
	step := vars{"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
		"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456"}
	pet := vars{"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29400"}
	for _, c := range []struct {
		name  string
		env   vars
		flags Flags
		gpus  int
		want  Topology
		err   string
	}{
		{name: "nothing", want: Topology{Size: 1, Source: "no launcher"}},
		{name: "flags", flags: Flags{Rank: 1, WorldSize: 2, LocalRank: -1, Master: "a:1"}, env: torch,
			want: Topology{Rank: 1, Size: 2, Master: "a:1", Source: "flags"}},
		{name: "a master of the flags and one of the environment", flags: Flags{Rank: 1, WorldSize: 2, LocalRank: -1, Master: "a:1"}, env: vars{"SAMBATRAIN_MASTER": "b:2"},
			want: Topology{Rank: 1, Size: 2, Master: "a:1", Source: "flags"}},
		{name: "half the flags", flags: Flags{Rank: 1, WorldSize: -1, LocalRank: -1}, err: "--rank and --world-size: give both"},
		{name: "own", env: vars{"SAMBATRAIN_RANK": "1", "SAMBATRAIN_WORLD_SIZE": "2", "SAMBATRAIN_LOCAL_RANK": "1", "SAMBATRAIN_MASTER": "h:9", "RANK": "0", "WORLD_SIZE": "9"},
			want: Topology{Rank: 1, Size: 2, LocalRank: 1, Master: "h:9", Source: "SAMBATRAIN_*"}},
		{name: "a secret", env: vars{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SAMBATRAIN_SECRET": "xyz"}, want: Topology{Rank: 1, Size: 2, Secret: "xyz", Source: "Open MPI"}},
		{name: "torchrun", env: torch, gpus: 2, want: Topology{Rank: 5, Size: 8, LocalRank: 1, Master: "node0:29501", Source: "torchrun's variables"}},
		{name: "PyTorchJob, one GPU", env: vars{"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m", "MASTER_PORT": "23456"}, gpus: 1,
			want: Topology{Rank: 1, Size: 2, Master: "m:23457", Source: "torchrun's variables"}},
		{name: "PyTorchJob, several GPUs", env: vars{"RANK": "1", "WORLD_SIZE": "2"}, gpus: 8, err: "LOCAL_RANK is not, and there are 8 GPUs: this looks like a count of nodes (PyTorchJob)"},
		{name: "Open MPI", env: vars{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
			want: Topology{Rank: 1, Size: 2, LocalRank: 1, Source: "Open MPI"}},
		{name: "srun", env: step, want: Topology{Rank: 3, Size: 4, LocalRank: 1, Master: "gpu07:23456", Source: "Slurm"}},
		{name: "sbatch without srun", env: vars{"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "1"}, err: "write `srun sambatrain ...`"},
		{name: "sbatch of one task", env: vars{"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "1"}, want: Topology{Size: 1, Source: "no launcher"}},
		{name: "Kubeflow", env: pet, want: Topology{Rank: 1, Size: 2, Master: "job-node-0-0.job:29400", Source: "Kubeflow's PET_*"}},
		{name: "Kubeflow, 4 per node", env: with(pet, "PET_NPROC_PER_NODE", "4"),
			want: Topology{Rank: 4, Size: 8, Spawn: 4, Master: "job-node-0-0.job:29400", Source: "Kubeflow's PET_*"}},
		{name: "Kubeflow, all GPUs", env: with(pet, "PET_NPROC_PER_NODE", "auto"), gpus: 2,
			want: Topology{Rank: 2, Size: 4, Spawn: 2, Master: "job-node-0-0.job:29400", Source: "Kubeflow's PET_*"}},
		{name: "Kubeflow, nonsense", env: with(pet, "PET_NPROC_PER_NODE", "many"), err: `PET_NPROC_PER_NODE: must be auto, gpu or at least 1, is "many"`},
		{name: "an indexed Job", env: vars{"JOB_COMPLETION_INDEX": "1", "SAMBATRAIN_NNODES": "3", "SAMBATRAIN_MASTER": "job-0:7000"},
			want: Topology{Rank: 1, Size: 3, Master: "job-0:7000", Source: "JOB_COMPLETION_INDEX"}},
		{name: "an indexed Job of single runs", env: vars{"JOB_COMPLETION_INDEX": "1"}, want: Topology{Size: 1, Source: "no launcher"}},
		{name: "two a node, no launcher", flags: Flags{PerNode: "2"}, want: Topology{Size: 2, Spawn: 2, Source: "no launcher"}},
		{name: "one per node", flags: Flags{PerNode: "1"}, gpus: 4, want: Topology{Size: 1, Source: "no launcher"}},
		{name: "one per GPU, Kubeflow says 4", flags: Flags{PerNode: "auto"}, env: with(pet, "PET_NPROC_PER_NODE", "4"), gpus: 2,
			want: Topology{Rank: 2, Size: 4, Spawn: 2, Master: "job-node-0-0.job:29400", Source: "Kubeflow's PET_*"}},
		{name: "one per GPU, PyTorchJob", flags: Flags{PerNode: "auto"}, env: vars{"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m", "MASTER_PORT": "23456"}, gpus: 8,
			want: Topology{Rank: 8, Size: 16, Spawn: 8, Master: "m:23457", Source: "torchrun's variables"}},
		{name: "one per GPU, an indexed Job", flags: Flags{PerNode: "auto"}, env: vars{"JOB_COMPLETION_INDEX": "1", "SAMBATRAIN_NNODES": "3", "SAMBATRAIN_MASTER": "job-0:7000"}, gpus: 2,
			want: Topology{Rank: 2, Size: 6, Spawn: 2, Master: "job-0:7000", Source: "JOB_COMPLETION_INDEX"}},
		{name: "one per GPU, none", flags: Flags{PerNode: "auto"}, err: "--nproc-per-node auto: no GPU is in sight"},
		{name: "no count", flags: Flags{PerNode: "all"}, gpus: 1, err: `--nproc-per-node: must be auto or at least 1, is "all"`},
		{name: "one per GPU under torchrun", flags: Flags{PerNode: "auto"}, env: torch, gpus: 2, err: "torchrun's variables has started several processes"},
		{name: "a started process", flags: Flags{PerNode: "2"}, env: vars{spawned: "1", "SAMBATRAIN_RANK": "1", "SAMBATRAIN_WORLD_SIZE": "2", "SAMBATRAIN_LOCAL_RANK": "1"}, gpus: 2,
			want: Topology{Rank: 1, Size: 2, LocalRank: 1, Source: "SAMBATRAIN_*"}},
		{name: "a master alone", flags: Flags{Master: "a:1"}, err: "--master: give --rank and --world-size too"},
		{name: "no number", env: vars{"RANK": "one", "WORLD_SIZE": "2"}, err: `RANK: must be a whole number, is "one"`},
		{name: "a rank too many", env: vars{"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "2"}, err: "rank 2, local rank 0 of 2 processes are invalid"},
		{name: "no size", env: vars{"OMPI_COMM_WORLD_RANK": "2"}, err: "OMPI_COMM_WORLD_SIZE is not"},
		{name: "no rank", env: vars{"WORLD_SIZE": "2"}, err: "WORLD_SIZE is set, RANK is not"},
		{name: "no port", env: with(torch, "MASTER_PORT", "http"), err: `MASTER_PORT: must be a port, is "http"`},
		{name: "no host", env: vars{"SAMBATRAIN_RANK": "0", "SAMBATRAIN_WORLD_SIZE": "1", "SAMBATRAIN_MASTER": "here"}, err: `master "here": must be host:port`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.flags.Rank == 0 && c.flags.WorldSize == 0 {
				f := NoFlags()
				f.PerNode, f.Master = c.flags.PerNode, c.flags.Master
				c.flags = f
			}
			got, err := Detect(c.flags, func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }, c.gpus)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error is %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func with(m map[string]string, name, value string) map[string]string {
	n := map[string]string{name: value}
	for k, v := range m {
		if k != name {
			n[k] = v
		}
	}
	return n
}

func TestFirstHost(t *testing.T) {
	for list, want := range map[string]string{
		"node1": "node1", "node1,node2": "node1", "gpu[003-007,012],login": "gpu003", "gpu[5]": "gpu5",
		"login,gpu[1-2]": "login", "rack[1-2]node[7,9].cluster": "rack1node7.cluster", "a[1-2]-ib": "a1-ib",
	} {
		if got, err := firstHost(list); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", list, got, err, want)
		}
	}
	for _, list := range []string{"", ",a", "a[", "[]", "a[1-2"} {
		if got, err := firstHost(list); err == nil {
			t.Errorf("%q is taken for host %q", list, got)
		}
	}
}
