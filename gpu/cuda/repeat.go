package cuda

import (
	"slices"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

var _ gpu.Repeater = (*Device)(nil)

// Repeat runs queue and sends what it queued to the card as one graph where the same was queued before: then the card begins each
// launch when the one before has ended, without a call of the driver for each. Queue runs every time, so that nothing can be stale: a
// graph is used only where every launch, with every argument, is that of the graph. What changes from one time to the next must
// therefore lie in buffers or come as lists of integers, which Repeat uploads beforehand.
func (d *Device) Repeat(queue func()) {
	base, ok := d.m.(repeatable)
	if !ok || d.plain || d.profile != nil || d.err != nil {
		queue()
		return
	}
	if d.repeats == nil {
		d.repeats = &recorder{}
	}
	r := d.repeats
	r.repeatable, r.d = base, d
	r.steps, r.slots, r.values = r.steps[:0], r.slots[:0], r.values[:0]
	d.m, d.recording = r, true
	defer func() { d.m, d.recording = base, false }()
	queue()
	o := d.begin("Repeat")
	defer o.end()
	if !o.failed() {
		o.try(r.flush())
	}
}

// SetGraphs chooses whether Repeat uses graphs (the default). The results have the same bits either way.
func (d *Device) SetGraphs(on bool) { d.plain = !on }

// graph is launches that the card holds, ready to be started together.
type graph any

// repeatable is a machine that makes graphs.
type repeatable interface {
	machine
	// capture makes a graph of what run queues, which does not happen.
	capture(run func() error) (graph, error)
	replay(graph) error
	release(graph)
}

// queued is a thing that a machine queues: a launch, a copy, a clearing (source 0) or a product of matrices.
type queued struct {
	unit            kernels.Unit
	grid            [3]uint32
	threads, shared int
	args            string
	dst, src        uint64
	bytes           int
	product         product
}

func (q queued) on(m machine) error {
	switch {
	case q.unit.Kernel != "":
		return m.launch(q.unit, q.grid, q.threads, q.shared, []byte(q.args))
	case q.product.c != 0:
		return m.multiply(q.product)
	case q.src != 0:
		return m.copy(q.dst, q.src, q.bytes)
	}
	return m.zero(q.dst, q.bytes)
}

// section is what was queued at some time, and its graph from the second time on.
type section struct {
	steps []queued
	graph graph
}

// slot is a list of integers in the recorder's memory.
type slot struct {
	use      string
	from, to int
}

const (
	// sectionsKept bounds the graphs: a decoder has one for each number of sequences that it runs at once.
	sectionsKept = 24
	// listWords is the room for lists of integers of a section, as large as what the driver copies aside before an upload returns.
	listWords = 16 << 10
)

// recorder is the machine of a section: it collects what is queued instead of queueing it.
type recorder struct {
	repeatable
	d        *Device
	steps    []queued
	sections []*section // the last used first
	lists    block
	slots    []slot
	values   []int32 // of the slots, from the start of lists
	uploaded []int32 // what lists holds
	broken   error   // why the machine makes no graphs
	replays  int
}

func (r *recorder) launch(u kernels.Unit, grid [3]uint32, threads, shared int, args []byte) error {
	r.steps = append(r.steps, queued{unit: u, grid: grid, threads: threads, shared: shared, args: string(args)})
	return nil
}

func (r *recorder) multiply(p product) error {
	r.steps = append(r.steps, queued{product: p})
	return nil
}

func (r *recorder) copy(dst, src uint64, bytes int) error {
	r.steps = append(r.steps, queued{dst: dst, src: src, bytes: bytes})
	return nil
}

func (r *recorder) zero(dst uint64, bytes int) error {
	r.steps = append(r.steps, queued{dst: dst, bytes: bytes})
	return nil
}

// What does not go into a graph comes after what was queued before it.

func (r *recorder) upload(dst uint64, src []byte) error {
	return r.after(func() error { return r.repeatable.upload(dst, src) })
}
func (r *recorder) download(dst []byte, src uint64) error {
	return r.after(func() error { return r.repeatable.download(dst, src) })
}
func (r *recorder) free(address uint64) error {
	return r.after(func() error { return r.repeatable.free(address) })
}
func (r *recorder) freeHost(memory []byte) error {
	return r.after(func() error { return r.repeatable.freeHost(memory) })
}
func (r *recorder) await(e gpu.Event) error {
	return r.after(func() error { return r.repeatable.await(e) })
}
func (r *recorder) sync() error { return r.after(r.repeatable.sync) }
func (r *recorder) transfer(device uint64, memory []byte, out bool) (e gpu.Event, err error) {
	err = r.after(func() error { e, err = r.repeatable.transfer(device, memory, out); return err })
	return e, err
}

func (r *recorder) after(do func() error) error {
	if err := r.flush(); err != nil {
		return err
	}
	return do()
}

// ints returns a place for a list, which is uploaded before anything of the section runs, or 0 where there is no room.
func (r *recorder) ints(o *operation, use string, values []int32) uint64 {
	for _, s := range r.slots {
		if s.use == use && slices.Equal(r.values[s.from:s.to], values) {
			return r.lists.address + uint64(4*s.from)
		}
	}
	from := (len(r.values) + 3) / 4 * 4 // at a multiple of 16 bytes
	if from+len(values) > listWords {
		return 0
	}
	if r.lists.bytes == 0 {
		o.reserve(&r.lists, 4*listWords)
		if o.failed() {
			return 0
		}
	}
	r.values = append(r.values, make([]int32, from-len(r.values))...)
	r.values = append(r.values, values...)
	r.slots = append(r.slots, slot{use, from, from + len(values)})
	return r.lists.address + uint64(4*from)
}

// flush uploads the lists and queues the steps: as a graph from the second time on that they are the same.
func (r *recorder) flush() error {
	steps := r.steps
	r.steps = r.steps[:0]
	if len(steps) == 0 {
		return nil
	}
	if !slices.Equal(r.uploaded[:min(len(r.uploaded), len(r.values))], r.values) {
		if err := r.repeatable.upload(r.lists.address, memoryBytes(r.values)); err != nil {
			return err
		}
		r.uploaded = append(r.uploaded[:0], r.values...)
	}
	s := r.seen(steps)
	if s == nil {
		return r.run(steps)
	}
	if s.graph == nil && r.broken == nil {
		// A driver that refuses to capture, or to make a graph of it, costs speed and nothing else.
		g, err := r.capture(func() error { return r.run(steps) })
		if r.broken = err; err == nil {
			s.graph = g
		}
	}
	if s.graph == nil {
		return r.run(steps)
	}
	r.replays++
	return r.replay(s.graph)
}

func (r *recorder) run(steps []queued) error {
	for _, q := range steps {
		if err := q.on(r.repeatable); err != nil {
			return err
		}
	}
	return nil
}

// seen returns the section with these steps, or nil for the first time.
func (r *recorder) seen(steps []queued) *section {
	for i, s := range r.sections {
		if slices.Equal(s.steps, steps) {
			copy(r.sections[1:], r.sections[:i])
			r.sections[0] = s
			return s
		}
	}
	if len(r.sections) == sectionsKept {
		last := len(r.sections) - 1
		if g := r.sections[last].graph; g != nil {
			r.release(g)
		}
		r.sections = r.sections[:last]
	}
	r.sections = slices.Insert(r.sections, 0, &section{steps: slices.Clone(steps)})
	return nil
}

// forget gives the graphs back.
func (r *recorder) forget() {
	if r == nil {
		return
	}
	for _, s := range r.sections {
		if s.graph != nil {
			r.release(s.graph)
		}
	}
	r.sections = nil
}
