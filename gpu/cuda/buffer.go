package cuda

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// Buffer is memory of the card.
type Buffer struct {
	address uint64
	n       int
	dtype   gpu.DType
	home    *allocation
}

// allocation is what Alloc made; all slices of a buffer share it.
type allocation struct {
	address uint64
	bytes   int
	freed   bool
	memory  []byte // of the host, for buffers by AllocHost; address is then its place
}

// Len returns the number of elements.
func (b *Buffer) Len() int { return b.n }

// DType returns the element type.
func (b *Buffer) DType() gpu.DType { return b.dtype }

// Slice returns elements [from, to), sharing memory. Bounds outside the buffer are clipped, and the operation
// that then finds the wrong length reports it.
func (b *Buffer) Slice(from, to int) gpu.Buffer {
	from = max(0, min(from, b.n))
	to = max(from, min(to, b.n))
	return &Buffer{b.address + uint64(from*b.dtype.Size()), to - from, b.dtype, b.home}
}

// Bytes returns the memory of a buffer by AllocHost, nil of others.
func (b *Buffer) Bytes() []byte {
	if b.home.memory == nil {
		return nil
	}
	from := int(b.address - b.home.address)
	return b.home.memory[from : from+b.bytes() : from+b.bytes()]
}

func (b *Buffer) bytes() int { return b.n * b.dtype.Size() }

// element is the type's name in kernels.
func (b *Buffer) element() string { return element(b.dtype) }

func element(t gpu.DType) string {
	if t == gpu.BFloat16 {
		return "u16"
	}
	return "float"
}

// aligned says, for kernels, whether rows of d elements of all buffers begin at multiples of 16 bytes.
func aligned(d int, bs ...*Buffer) int32 {
	for _, b := range bs {
		if b.address%16 != 0 || d*b.dtype.Size()%16 != 0 || d%8 != 0 {
			return 0
		}
	}
	return 1
}

// Alloc returns n zeros.
func (d *Device) Alloc(n int, t gpu.DType) (gpu.Buffer, error) {
	if err := d.allocatable(n, t); err != nil {
		return nil, err
	}
	bytes := max(n*t.Size(), 1)
	address, err := d.m.alloc(bytes)
	if err == nil {
		err = d.m.zero(address, bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("cuda device: %w", err)
	}
	d.allocated += int64(bytes)
	return &Buffer{address, n, t, &allocation{address: address, bytes: bytes}}, nil
}

func (d *Device) allocatable(n int, t gpu.DType) error {
	switch {
	case !d.Supports(t) && t != gpu.UInt8:
		return fmt.Errorf("cuda device: %v is not supported; use f32 or bf16", t)
	case n < 0:
		return fmt.Errorf("cuda device: cannot allocate %d elements", n)
	}
	return d.err
}

// Free gives the memory of b back; using it or a slice of it later is an error.
func (d *Device) Free(b gpu.Buffer) {
	x, ok := b.(*Buffer)
	if !ok || x == nil || x.home.freed {
		return
	}
	x.home.freed = true
	if d.closed {
		return
	}
	if x.home.memory != nil {
		if err := d.m.freeHost(x.home.memory); err != nil {
			d.fail("Free", err)
		}
		return
	}
	if err := d.m.free(x.home.address); err != nil {
		d.fail("Free", err)
		return
	}
	d.allocated -= int64(x.home.bytes)
}

type float interface{ float32 | float64 }

// Upload converts src into dst.
func (d *Device) Upload(dst gpu.Buffer, src []float32) { upload(d, "Upload", dst, src) }

// Upload64 converts src into dst.
func (d *Device) Upload64(dst gpu.Buffer, src []float64) { upload(d, "Upload64", dst, src) }

// Download converts src into dst.
func (d *Device) Download(dst []float32, src gpu.Buffer) { download(d, "Download", dst, src) }

// Download64 converts src into dst.
func (d *Device) Download64(dst []float64, src gpu.Buffer) { download(d, "Download64", dst, src) }

// part bounds the elements that are converted at a time on their way.
const part = 1 << 22

func upload[F float](d *Device, name string, dst gpu.Buffer, src []F) {
	o := d.begin(name)
	defer o.end()
	b := o.place("the buffer", dst, len(src))
	if b.home.memory != nil {
		o.try(d.m.sync()) // a transfer may still read it
	}
	for from := 0; from < len(src) && !o.failed(); from += part {
		s := src[from:min(from+part, len(src))]
		var bytes []byte
		switch b.dtype {
		case gpu.Float32:
			f, same := any(s).([]float32)
			if !same {
				f = make([]float32, len(s))
				for i, v := range s {
					f[i] = float32(v)
				}
			}
			bytes = memoryBytes(f)
		case gpu.UInt8:
			bytes = make([]byte, len(s))
			for i, v := range s {
				bytes[i] = byte(v)
			}
		default:
			h := make([]uint16, len(s))
			for i, v := range s {
				h[i] = narrow(float32(v))
			}
			bytes = memoryBytes(h)
		}
		if b.home.memory != nil {
			copy(b.Bytes()[from*b.dtype.Size():], bytes)
			continue
		}
		o.try(d.m.upload(b.address+uint64(from*b.dtype.Size()), bytes))
	}
}

func download[F float](d *Device, name string, dst []F, src gpu.Buffer) {
	o := d.begin(name)
	defer o.end()
	b := o.place("the buffer", src, len(dst))
	if b.home.memory != nil {
		o.try(d.m.sync()) // a transfer may still write it
	}
	read := func(to []byte, from int) {
		if b.home.memory != nil {
			copy(to, b.Bytes()[from*b.dtype.Size():])
			return
		}
		o.try(d.m.download(to, b.address+uint64(from*b.dtype.Size())))
	}
	for from := 0; from < len(dst) && !o.failed(); from += part {
		s := dst[from:min(from+part, len(dst))]
		switch b.dtype {
		case gpu.Float32:
			f, same := any(s).([]float32)
			if !same {
				f = make([]float32, len(s))
			}
			read(memoryBytes(f), from)
			if !same {
				for i, v := range f {
					s[i] = F(v)
				}
			}
		case gpu.UInt8:
			h := make([]byte, len(s))
			read(h, from)
			for i, v := range h {
				s[i] = F(v)
			}
		default:
			h := make([]uint16, len(s))
			read(memoryBytes(h), from)
			for i, v := range h {
				s[i] = F(math.Float32frombits(uint32(v) << 16))
			}
		}
	}
}

// narrow rounds to bfloat16, to nearest even; a NaN stays one.
func narrow(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return 0x7fff
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// Copy copies src to dst, rounding where dst's type is narrower.
func (d *Device) Copy(dst, src gpu.Buffer) {
	o := d.begin("Copy")
	defer o.end()
	from := o.have("src", src)
	to := o.want("dst", dst, from.n, gpu.Float32, gpu.BFloat16)
	o.work(0, float64(from.bytes()+to.bytes()))
	if o.failed() || from.n == 0 {
		return
	}
	if from.dtype == to.dtype {
		o.try(d.m.copy(to.address, from.address, from.bytes()))
		return
	}
	launch(o, "convert", "T="+from.element()+" W="+to.element(), over(ceil(from.n, 2048)), 256, 0, struct {
		y, x uint64
		n    int64
		wide int32
	}{to.address, from.address, int64(from.n), aligned(8, to, from)})
}

// Zero clears x.
func (d *Device) Zero(x gpu.Buffer) {
	o := d.begin("Zero")
	defer o.end()
	b := o.place("x", x, -1)
	switch {
	case o.failed() || b.n == 0:
	case b.home.memory != nil:
		o.try(d.m.sync())
		clear(b.Bytes())
	default:
		o.work(0, float64(b.bytes()))
		o.try(d.m.zero(b.address, b.bytes()))
	}
}
