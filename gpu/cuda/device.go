package cuda

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/longalign/longalign-go/gpu"
)

// Device computes on a card.
type Device struct {
	m         machine
	err       error
	closed    bool
	allocated int64
	lists     map[string]*list  // integers on the device, by use
	temporary map[string]*block // memory of operations, by use
	profile   map[string]*gpu.OpStats
	hopper    bool // attention runs on Hopper's matrix units
	plain     bool // Repeat makes no graphs
	repeats   *recorder
	recording bool // repeats is the machine
	fast      bool // gradients of attention add up in any order
}

var (
	_ gpu.Device   = (*Device)(nil)
	_ gpu.Profiler = (*Device)(nil)
)

type block struct {
	address uint64
	bytes   int
}

// list is integers that the device holds, with what they are: most operations get the same ones again.
type list struct {
	block
	values []int32
}

func newDevice(m machine) *Device {
	return &Device{m: m, lists: map[string]*list{}, temporary: map[string]*block{}}
}

// Info describes the card.
func (d *Device) Info() gpu.Info {
	i := d.m.info()
	if d.hopper {
		i.Class += "/wgmma"
	}
	if d.fast && d.hopper {
		i.Class += "/fast"
		i.Memory = max(0, i.Memory-fastBytes)
	}
	return i
}

// Supports reports true for Float32 and BFloat16.
func (d *Device) Supports(t gpu.DType) bool { return t == gpu.Float32 || t == gpu.BFloat16 }

// WeightsChanged does nothing: no copies of weights are kept.
func (d *Device) WeightsChanged() {}

// Sync waits for the card and returns the first failure.
func (d *Device) Sync() error {
	if d.err == nil {
		if err := d.m.sync(); err != nil {
			d.fail("Sync", err)
		}
	}
	return d.err
}

// Close frees everything. Operations fail from then on.
func (d *Device) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	d.repeats.forget()
	err := d.m.close()
	d.fail("Close", errors.New("the device is closed"))
	return err
}

func (d *Device) fail(op string, err error) {
	if d.err == nil {
		d.err = &gpu.OpError{Device: "cuda", Op: op, Err: err}
	}
}

// Allocated returns the bytes that buffers and the device's own scratch memory take.
func (d *Device) Allocated() int64 { return d.allocated }

// StartProfile counts from now on; each operation then waits for the card, which costs some speed.
func (d *Device) StartProfile() { d.profile = map[string]*gpu.OpStats{} }

// StopProfile returns the counts, the longest time first.
func (d *Device) StopProfile() []gpu.OpStats {
	var all []gpu.OpStats
	for _, s := range d.profile {
		all = append(all, *s)
	}
	d.profile = nil
	sort.Slice(all, func(i, j int) bool { return all[i].Seconds > all[j].Seconds })
	return all
}

// operation is one call of a Device method: it checks operands and stops at the first failure.
type operation struct {
	d     *Device
	name  string
	began time.Time
	stats *gpu.OpStats
}

// begin starts an operation. Its end is deferred by the caller.
func (d *Device) begin(name string) *operation {
	o := &operation{d: d, name: name}
	if d.profile != nil && d.err == nil {
		o.try(d.m.sync())
		if o.stats = d.profile[name]; o.stats == nil {
			o.stats = &gpu.OpStats{Op: name}
			d.profile[name] = o.stats
		}
		o.began = time.Now()
	}
	return o
}

func (o *operation) end() {
	if o.stats != nil && !o.failed() {
		o.try(o.d.m.sync())
		o.stats.Calls++
		o.stats.Seconds += time.Since(o.began).Seconds()
	}
}

// work counts what the operation has to do.
func (o *operation) work(flops, bytes float64) {
	if o.stats != nil && !o.failed() {
		o.stats.FLOPs += flops
		o.stats.Bytes += bytes
	}
}

func (o *operation) failed() bool { return o.d.err != nil }

func (o *operation) try(err error) {
	if err != nil {
		o.d.fail(o.name, err)
	}
}

func (o *operation) refuse(format string, args ...any) { o.try(fmt.Errorf(format, args...)) }

// have returns operand b, whatever its length and type. After a failure it returns an empty buffer.
func (o *operation) have(name string, b gpu.Buffer) *Buffer {
	x := o.place(name, b, -1)
	if x.home.memory != nil {
		o.refuse("%s is host memory, which no operation computes in", name)
		return &Buffer{home: &allocation{}}
	}
	return x
}

// place returns operand b, which may be host memory; n is its length, or -1 for any.
func (o *operation) place(name string, b gpu.Buffer, n int) *Buffer {
	none := &Buffer{home: &allocation{}}
	if o.failed() {
		return none
	}
	x, ok := b.(*Buffer)
	switch {
	case b == nil || ok && x == nil:
		o.refuse("%s is missing", name)
	case !ok:
		o.refuse("%s is a %T of another device", name, b)
	case x.home.freed:
		o.refuse("%s was freed", name)
	case n >= 0 && x.n != n:
		o.refuse("%s has %d elements, not %d", name, x.n, n)
	default:
		return x
	}
	return none
}

// want returns operand b, which must have n elements of one of the types.
func (o *operation) want(name string, b gpu.Buffer, n int, types ...gpu.DType) *Buffer {
	x := o.have(name, b)
	switch {
	case o.failed():
	case x.n != n:
		o.refuse("%s has %d elements, not %d", name, x.n, n)
	case !slices.Contains(types, x.dtype):
		o.refuse("%s is %v, not %v", name, x.dtype, types)
	}
	return x
}

// wide returns the types that gradients of weights and statistics of a model of type t may have.
func wide(t gpu.DType) []gpu.DType {
	if t == gpu.Float32 {
		return []gpu.DType{gpu.Float32}
	}
	return []gpu.DType{gpu.Float32, t}
}

// rows returns the number of rows of width d in x.
func (o *operation) rows(name string, x *Buffer, d int) int {
	if !o.failed() && (d <= 0 || x.n%d != 0) {
		o.refuse("%s has %d elements, which are no rows of %d", name, x.n, d)
	}
	if o.failed() {
		return 0
	}
	return x.n / d
}

// ints returns integers on the device. The last of each use are kept.
func (o *operation) ints(use string, values []int32) uint64 {
	if o.failed() || len(values) == 0 {
		return 0
	}
	if o.d.recording {
		if address := o.d.repeats.ints(o, use, values); address != 0 || o.failed() {
			return address
		}
	}
	l := o.d.lists[use]
	if l == nil {
		l = &list{}
		o.d.lists[use] = l
	}
	if slices.Equal(l.values, values) {
		return l.address
	}
	l.values = l.values[:0]
	o.reserve(&l.block, 4*len(values))
	if !o.failed() {
		o.try(o.d.m.upload(l.address, memoryBytes(values)))
		l.values = append(l.values, values...)
	}
	return l.address
}

// scratch returns memory that lasts until the next operation asks for the same use.
func (o *operation) scratch(use string, bytes int) uint64 {
	if o.failed() {
		return 0
	}
	b := o.d.temporary[use]
	if b == nil {
		b = &block{}
		o.d.temporary[use] = b
	}
	o.reserve(b, bytes)
	return b.address
}

func (o *operation) reserve(b *block, bytes int) {
	if b.bytes >= bytes {
		return
	}
	if b.bytes > 0 {
		o.try(o.d.m.sync())
		o.try(o.d.m.free(b.address))
		o.d.allocated -= int64(b.bytes)
		*b = block{}
	}
	if o.failed() {
		return
	}
	address, err := o.d.m.alloc(bytes)
	if err != nil {
		o.try(err)
		return
	}
	o.d.allocated += int64(bytes)
	*b = block{address, bytes}
}
