package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Float reports whether elements of type t are floating-point numbers that Floats can read.
func (t DType) Float() bool { return t == F64 || t == F32 || t == F16 || t == BF16 }

// Float32 returns the elements, rounded to float32 where they are wider.
func (t Tensor) Float32() ([]float32, error) {
	out := make([]float32, len(t.Data)/max(1, t.DType.Size()))
	switch t.DType {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
		}
	case F16:
		for i := range out {
			out[i] = fromHalf(binary.LittleEndian.Uint16(t.Data[2*i:]))
		}
	case F64:
		for i := range out {
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:])))
		}
	default:
		return nil, &FormatError{Tensor: t.Name, Reason: fmt.Sprintf("%s does not hold floating-point weights; convert the model to F32, F16 or BF16", t.DType)}
	}
	return out, nil
}

// Float64 returns the elements as float64.
func (t Tensor) Float64() ([]float64, error) {
	out := make([]float64, len(t.Data)/max(1, t.DType.Size()))
	if t.DType == F64 {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
		}
		return out, nil
	}
	narrow, err := t.Float32()
	if err != nil {
		return nil, err
	}
	for i, x := range narrow {
		out[i] = float64(x)
	}
	return out, nil
}

// Encode returns x as little-endian bytes of type t, rounded to nearest even.
func Encode(t DType, x []float32) ([]byte, error) {
	out := make([]byte, len(x)*t.Size())
	switch t {
	case F32:
		for i, v := range x {
			binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(v))
		}
	case BF16:
		for i, v := range x {
			binary.LittleEndian.PutUint16(out[2*i:], toBFloat(v))
		}
	case F16:
		for i, v := range x {
			binary.LittleEndian.PutUint16(out[2*i:], toHalf(v))
		}
	case F64:
		for i, v := range x {
			binary.LittleEndian.PutUint64(out[8*i:], math.Float64bits(float64(v)))
		}
	default:
		return nil, &FormatError{Reason: fmt.Sprintf("cannot write floating-point weights as %s", t)}
	}
	return out, nil
}

// Encode64 is Encode for float64 input.
func Encode64(t DType, x []float64) ([]byte, error) {
	if t == F64 {
		out := make([]byte, 8*len(x))
		for i, v := range x {
			binary.LittleEndian.PutUint64(out[8*i:], math.Float64bits(v))
		}
		return out, nil
	}
	narrow := make([]float32, len(x))
	for i, v := range x {
		narrow[i] = float32(v)
	}
	return Encode(t, narrow)
}

func toBFloat(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return uint16(b>>16) | 0x40 // keep it a NaN when the payload's low bits go
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func fromHalf(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10&31), uint32(h&1023)
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
	v := float32(frac) * (1.0 / (1 << 24)) // subnormal
	return math.Float32frombits(sign | math.Float32bits(v))
}

func toHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	mag := b & 0x7fffffff
	switch {
	case mag > 0x7f800000:
		return sign | 0x7c00 | uint16(mag>>13&1023) | 0x200
	case mag >= 0x477ff000: // rounds to 2^16 or more
		return sign | 0x7c00
	case mag >= 0x38800000: // normal
		mag += 0xfff + mag>>13&1
		return sign | uint16((mag-0x38000000)>>13)
	}
	// Subnormal: the spacing is 2^-24; adding 0.5 puts that bit at the end of the mantissa.
	f := math.Float32frombits(mag) + 0.5
	return sign | uint16(math.Float32bits(f)-math.Float32bits(0.5))
}
