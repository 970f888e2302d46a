package host

import (
	"cmp"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longalign/longalign-go/gpu"
)

// StartProfile forgets earlier counts and counts from now on.
func (d *Device) StartProfile() { d.prof = profile{on: true, counts: map[string]*gpu.OpStats{}} }

// StopProfile returns the counts since StartProfile, the longest time first.
func (d *Device) StopProfile() []gpu.OpStats {
	var out []gpu.OpStats
	for _, c := range d.prof.counts {
		out = append(out, *c)
	}
	d.prof = profile{}
	slices.SortFunc(out, func(a, b gpu.OpStats) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), strings.Compare(a.Op, b.Op))
	})
	return out
}

// peakJob keeps a tile busy on operands in the first-level cache, or reads memory once.
type peakJob struct {
	e      *engine[float32]
	memory []float32
	sums   []float32
}

const (
	peakRounds = 2000
	peakPart   = 1 << 18 // elements that a part reads
)

func (j *peakJob) part(w, i int) {
	if j.memory != nil {
		j.sums[w] += j.e.max(j.memory[i*peakPart : (i+1)*peakPart])
		return
	}
	x := j.e.local[w]
	a, b, c := &x[0], &x[kBlock*j.e.mr], &x[kBlock*(j.e.mr+j.e.nr)]
	for range peakRounds {
		j.e.tileCols(kBlock, 1, a, j.e.mr, 0, b, c, j.e.nr, false)
	}
}

// Peak measures what the inner loop of a product reaches and how fast memory is read: the best of several rounds.
func (d *Device) Peak() gpu.Peaks {
	if d.closed {
		return gpu.Peaks{}
	}
	e := d.f32
	e.scratch(kBlock*(e.mr+e.nr) + e.mr*e.nr)
	threads := d.pool.threads
	j := &peakJob{e: e, sums: make([]float32, threads)}
	var p gpu.Peaks
	for range 5 {
		began := time.Now()
		d.pool.run(j, threads)
		s := time.Since(began).Seconds()
		p.FLOPS = max(p.FLOPS, 2*float64(threads*peakRounds*kBlock*e.mr*e.nr)/s)
	}
	parts := max(64, threads)
	j.memory = make([]float32, parts*peakPart)
	for i := range j.memory {
		j.memory[i] = 1
	}
	for range 5 {
		began := time.Now()
		d.pool.run(j, parts)
		p.Bandwidth = max(p.Bandwidth, float64(4*parts*peakPart)/time.Since(began).Seconds())
	}
	return p
}

// processorName reads the model name where the system tells it.
func processorName() string {
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// UsableMemory returns the bytes that the system says are available, no more than what the process's control group leaves, or 0
// if nothing says.
func UsableMemory() int64 {
	n := availableMemory()
	for _, group := range [][4]string{
		{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"},
		{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
	} {
		limit, used := number(group[0]), number(group[1])-field(group[2], group[3]) // what files hold is given back
		if left := limit - used; limit > 0 && left > 0 && (n == 0 || left < n) {
			n = left
		}
	}
	return n
}

// number reads a file that holds one; 0 where it does not.
func number(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func availableMemory() int64 { return field("/proc/meminfo", "MemAvailable:") << 10 }

// field returns the number behind a name at the beginning of a file's line, 0 where there is none.
func field(file, name string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
