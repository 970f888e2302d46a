package host

import (
	"fmt"
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
)

// Buffer is host memory; one of f32, f64 and u8 holds its elements.
type Buffer struct {
	dtype gpu.DType
	f32   []float32
	f64   []float64
	u8    []uint8
	home  *allocation
}

// allocation is what Alloc made; all slices of a buffer share it.
type allocation struct {
	freed bool
	host  bool // by AllocHost: no memory to compute in
}

// Len returns the number of elements.
func (b *Buffer) Len() int { return len(b.f32) + len(b.f64) + len(b.u8) }

// Bytes returns the memory itself.
func (b *Buffer) Bytes() []byte {
	switch b.dtype {
	case gpu.UInt8:
		return b.u8
	case gpu.Float64:
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b.f64))), 8*len(b.f64))
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b.f32))), 4*len(b.f32))
}

// DType returns the element type.
func (b *Buffer) DType() gpu.DType { return b.dtype }

// Slice returns elements [from, to), sharing memory. Bounds outside the buffer are clipped, and the
// operation that then finds the wrong length reports it.
func (b *Buffer) Slice(from, to int) gpu.Buffer {
	n := b.Len()
	from = max(0, min(from, n))
	to = max(from, min(to, n))
	s := &Buffer{dtype: b.dtype, home: b.home}
	switch b.dtype {
	case gpu.Float64:
		s.f64 = b.f64[from:to:to]
	case gpu.UInt8:
		s.u8 = b.u8[from:to:to]
	default:
		s.f32 = b.f32[from:to:to]
	}
	return s
}

func (b *Buffer) freed() bool { return b.home.freed }

// bounds returns the addresses that the elements occupy.
func (b *Buffer) bounds() (lo, hi uintptr) {
	switch b.dtype {
	case gpu.Float64:
		return memory(b.f64)
	case gpu.UInt8:
		return memory(b.u8)
	}
	return memory(b.f32)
}

func memory[F Float | uint8](x []F) (lo, hi uintptr) {
	var f F
	lo = uintptr(unsafe.Pointer(unsafe.SliceData(x)))
	return lo, lo + uintptr(len(x))*unsafe.Sizeof(f)
}

// elements returns the slice of b for the engine of type F; nil stays nil.
func elements[F Float](b gpu.Buffer) []F {
	if b == nil {
		return nil
	}
	h := b.(*Buffer)
	var f F
	if unsafe.Sizeof(f) == 8 {
		return unsafe.Slice((*F)(unsafe.Pointer(unsafe.SliceData(h.f64))), len(h.f64))
	}
	return unsafe.Slice((*F)(unsafe.Pointer(unsafe.SliceData(h.f32))), len(h.f32))
}

// aligned returns n zeros that begin at a cache line.
func aligned[F Float](n int) []F {
	var f F
	size := int(unsafe.Sizeof(f))
	line := 64 / size
	s := make([]F, n+line)
	off := 0
	if r := int(uintptr(unsafe.Pointer(&s[0])) & 63); r != 0 {
		off = (64 - r) / size
	}
	return s[off : off+n : off+n]
}

// Alloc returns n zeros.
func (d *Device) Alloc(n int, t gpu.DType) (gpu.Buffer, error) {
	b, err := d.alloc(n, t)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (d *Device) alloc(n int, t gpu.DType) (*Buffer, error) {
	if !d.Supports(t) && t != gpu.UInt8 {
		return nil, fmt.Errorf("host device: %v is not supported; use f32 or f64", t)
	}
	if n < 0 {
		return nil, fmt.Errorf("host device: cannot allocate %d elements", n)
	}
	if bytes := int64(n) * int64(t.Size()); d.info.Memory > 0 && bytes > d.info.Memory {
		return nil, fmt.Errorf("host device: %w: %d MiB asked for, the machine has %d; use a smaller model, fewer tokens a micro-batch, or recompute activations", gpu.ErrOutOfMemory, bytes>>20, d.info.Memory>>20)
	}
	b := &Buffer{dtype: t, home: &allocation{}}
	switch t {
	case gpu.Float64:
		b.f64 = aligned[float64](n)
	case gpu.UInt8:
		b.u8 = make([]uint8, n)
	default:
		b.f32 = aligned[float32](n)
	}
	return b, nil
}

// Free drops the memory of b; using it or a slice of it later is an error.
func (d *Device) Free(b gpu.Buffer) {
	h, ok := b.(*Buffer)
	if !ok || h == nil {
		return
	}
	d.packs.forget(h)
	h.home.freed = true
	h.f32, h.f64, h.u8 = nil, nil, nil
}

// Upload converts src into dst.
func (d *Device) Upload(dst gpu.Buffer, src []float32) { transfer(d, "Upload", dst, src, true) }

// Upload64 converts src into dst.
func (d *Device) Upload64(dst gpu.Buffer, src []float64) { transfer(d, "Upload64", dst, src, true) }

// Download converts src into dst.
func (d *Device) Download(dst []float32, src gpu.Buffer) { transfer(d, "Download", src, dst, false) }

// Download64 converts src into dst.
func (d *Device) Download64(dst []float64, src gpu.Buffer) {
	transfer(d, "Download64", src, dst, false)
}

func transfer[H Float](d *Device, op string, b gpu.Buffer, h []H, up bool) {
	if !d.startMemory(op, b) {
		return
	}
	buf, _ := b.(*Buffer)
	switch {
	case buf == nil:
		d.finish(op, errNoBuffer)
		return
	case buf.Len() != len(h):
		d.finish(op, fmt.Errorf("the buffer has %d elements, the host slice %d", buf.Len(), len(h)))
		return
	}
	switch {
	case up && buf.dtype == gpu.Float64:
		convert(buf.f64, h)
	case up && buf.dtype == gpu.UInt8:
		for i, v := range h {
			buf.u8[i] = uint8(v)
		}
	case buf.dtype == gpu.UInt8:
		for i, v := range buf.u8 {
			h[i] = H(v)
		}
	case up:
		convert(buf.f32, h)
	case buf.dtype == gpu.Float64:
		convert(h, buf.f64)
	default:
		convert(h, buf.f32)
	}
	if up {
		d.packs.written(buf)
	}
	d.finish(op, nil)
}

func convert[A, B Float](dst []A, src []B) {
	for i, v := range src {
		dst[i] = A(v)
	}
}
