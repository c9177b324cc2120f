package all_gather

import "github.com/sambatrain/sambatrain/graph"

var cpu = graph.CollectiveKernel(graph.AllGather)
