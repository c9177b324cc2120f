package cpu

import (
	"testing"
	"testing/fstest"
)

// TestAvailableMemory: the smallest of what the kernel, a control group and its ancestors leave.
func TestAvailableMemory(t *testing.T) {
	const (
		host    = "MemTotal:       64000 kB\nMemFree:         1000 kB\nMemAvailable:   32000 kB\n"
		v2, v1  = "0::/jobs/one\n", "9:cpu:/\n4:memory:/jobs/one\n0::/\n"
		noLimit = "9223372036854771712"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known": {nil, 0},
		"no groups":     {map[string]string{"proc/meminfo": host}, 32000 << 10},
		"no limit": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v2,
			"sys/fs/cgroup/jobs/one/memory.max": "max\n", "sys/fs/cgroup/jobs/one/memory.current": "5\n"}, 32000 << 10},
		"a limit": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v2,
			"sys/fs/cgroup/jobs/one/memory.max": "9000\n", "sys/fs/cgroup/jobs/one/memory.current": "5000\n",
			"sys/fs/cgroup/jobs/one/memory.stat": "anon 4000\ninactive_file 700\nactive_file 80\n"}, 4780},
		"a limit above": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v2,
			"sys/fs/cgroup/jobs/one/memory.max": "9000\n", "sys/fs/cgroup/jobs/one/memory.current": "0\n",
			"sys/fs/cgroup/jobs/memory.max": "8000\n", "sys/fs/cgroup/jobs/memory.current": "7000\n"}, 1000},
		"the container's own root": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v2,
			"sys/fs/cgroup/memory.max": "6000\n", "sys/fs/cgroup/memory.current": "2000\n"}, 4000},
		"version 1": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": noLimit, "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
			"sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "9000\n", "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": "8000\n",
			"sys/fs/cgroup/memory/jobs/one/memory.stat": "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 50\n"}, 1350},
		"all of it taken": {map[string]string{"proc/meminfo": host, "proc/self/cgroup": v2,
			"sys/fs/cgroup/jobs/one/memory.max": "9000\n", "sys/fs/cgroup/jobs/one/memory.current": "9000\n"}, 1},
		"a limit alone": {map[string]string{"proc/self/cgroup": v2,
			"sys/fs/cgroup/jobs/one/memory.max": "9000\n", "sys/fs/cgroup/jobs/one/memory.current": "1000\n"}, 8000},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := availableIn(root); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}
