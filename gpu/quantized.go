package gpu

import "math"

// QuantBlock is the number of elements that share a scale. Buffers of parameters are padded to it, so that no block holds
// elements of two tensors.
const QuantBlock = 64

// Quantized is a moment in eight bits an element.
//
// An element is its code's value times its block's scale. Scales are powers of two (the code is the exponent plus 127, 0 for a
// block of zeros), so that scaling is exact and devices agree on every code. The largest element of a block lies in
// [½, 1) of the scale.
//
// First moments have a sign, four bits of exponent and three of mantissa, second moments five and three: values (8+m)/8 · 2^(e−15)
// and (8+m)/8 · 2^(e−31), and m/8 · 2^(1−15) and m/8 · 2^(1−31) at e = 0. Rounding is to one of the two neighbours with
// probabilities that make it right on average; a second moment above zero never becomes zero, for its root divides.
type Quantized struct {
	Codes  Buffer // UInt8 [n]
	Scales Buffer // UInt8 [⌈n / QuantBlock⌉]
}

// ScaleCode returns the scale of a block whose largest absolute value is most.
func ScaleCode(most float32) uint8 {
	if most == 0 {
		return 0
	}
	return uint8(min(math.Float32bits(most)>>23&0xff+1, 253))
}

// ScaleOf returns the scale of a code and its inverse.
func ScaleOf(code uint8) (scale, inverse float32) {
	return math.Float32frombits(uint32(code) << 23), math.Float32frombits((254 - uint32(code)) << 23)
}

// Random8 returns the random bits of an element: the low half is the first moment's, the high half the second's.
func Random8(seed uint64, step, element int) (first, second uint32) {
	x := seed + uint64(step)*0x9e3779b97f4a7c15 ^ uint64(element)*0xd1342543de82ef95
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return uint32(x), uint32(x >> 32)
}

// small rounds x, in [0, 2), to a code of the given bias and three bits of mantissa.
func small(x float32, bias uint32, random uint32) uint8 {
	bits := math.Float32bits(x)
	if bits>>23 > 127-bias {
		return uint8((bits+random>>12)>>20 - (127-bias)<<3)
	}
	// Below the normal numbers codes are equally far apart.
	steps := x * math.Float32frombits((127+bias+2)<<23)
	return uint8(steps + float32(random>>8)*(1.0/(1<<24)))
}

func value8(code, bias uint32) float32 {
	if code < 8 {
		return float32(code) * math.Float32frombits((127-bias-2)<<23)
	}
	return math.Float32frombits(code<<20 + (127-bias)<<23)
}

// Encode8 returns the code of a first moment, scaled.
func Encode8(x float32, random uint32) uint8 {
	bits := math.Float32bits(x)
	return small(math.Float32frombits(bits&^(1<<31)), 15, random) | uint8(bits>>31)<<7
}

// Decode8 returns the value of a first moment's code.
func Decode8(code uint8) float32 {
	v := value8(uint32(code&0x7f), 15)
	if code > 0x7f {
		return -v
	}
	return v
}

// EncodeSecond8 returns the code of a second moment, scaled.
func EncodeSecond8(x float32, random uint32) uint8 {
	c := small(x, 31, random)
	if c == 0 && x > 0 {
		return 1
	}
	return c
}

// DecodeSecond8 returns the value of a second moment's code.
func DecodeSecond8(code uint8) float32 { return value8(uint32(code), 31) }
