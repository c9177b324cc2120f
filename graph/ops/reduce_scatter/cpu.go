package reduce_scatter

import "github.com/sambatrain/sambatrain/graph"

var cpu = graph.CollectiveKernel(graph.ReduceScatter)
