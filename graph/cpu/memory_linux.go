package cpu

import (
	"bufio"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// availableMemory is the memory that can be allocated without swapping, in bytes: what the kernel
// reports, or the smallest remainder of the limits of this process's control groups, as set by a
// container or a batch system. 0 means unknown.
func availableMemory() (int64, error) { return availableIn(os.DirFS("/")), nil }

func availableIn(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	if n, ok := numberAfter(root, "proc/meminfo", "MemAvailable:"); ok {
		least = n << 10
	}
	for _, g := range memoryGroups(root) {
		if left, ok := g.left(root); ok {
			least = min(least, max(left, 1))
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// memoryGroup is the folder of a control group, and the names of its files.
type memoryGroup struct {
	dir          string
	limit, usage string
	files        string // prefix of the names of its file page counts
}

// memoryGroups are this process's control groups and their ancestors, of both versions. If a
// container sees its own group as the root, the group's path on the host does not exist there, and
// the root is the one that counts.
func memoryGroups(root fs.FS) []memoryGroup {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var list []memoryGroup
	add := func(mount, dir string, g memoryGroup) {
		for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
			g.dir = path.Join(mount, dir)
			list = append(list, g)
			if dir == "/" {
				return
			}
		}
	}
	for line := range strings.Lines(string(text)) {
		number, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, _ := strings.Cut(rest, ":")
		switch {
		case number == "0" && controllers == "":
			add("sys/fs/cgroup", dir, memoryGroup{limit: "memory.max", usage: "memory.current"})
		case controllers == "memory":
			add("sys/fs/cgroup/memory", dir, memoryGroup{limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", files: "total_"})
		}
	}
	return list
}

// left is what the group may still allocate. File pages count as free, as in what the kernel
// reports for the whole machine.
func (g memoryGroup) left(root fs.FS) (bytes int64, ok bool) {
	limit, ok := number(root, path.Join(g.dir, g.limit))
	if !ok {
		return 0, false // no limit, or no such group
	}
	usage, ok := number(root, path.Join(g.dir, g.usage))
	if !ok {
		return 0, false
	}
	stat := path.Join(g.dir, "memory.stat")
	inactive, _ := numberAfter(root, stat, g.files+"inactive_file")
	active, _ := numberAfter(root, stat, g.files+"active_file")
	return limit - usage + inactive + active, true
}

// number is the number in a file.
func number(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// numberAfter is the number after a line's first word.
func numberAfter(root fs.FS, name, word string) (n int64, ok bool) {
	f, err := root.Open(name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), word+" "); found {
			_, err := fmt.Sscan(rest, &n)
			return n, err == nil
		}
	}
	return 0, false
}
