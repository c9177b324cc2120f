// Package dist determines the rank of this process in a run, and provides collectives between
// processes through the libraries that clusters have: Open MPI between CPUs, NCCL between GPUs. They
// are loaded at run time if a run has more than one process, so that one binary serves all.
package dist
