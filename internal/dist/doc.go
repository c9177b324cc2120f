// Package dist says which process of a run this one is, and moves numbers between
// them with the library that the cluster has: Open MPI between CPUs, NCCL between GPUs. It is
// opened when a run has more than one process, so that one binary serves all.
package dist
