package jieba

import "math"

// Equally probable cuts are common (many words share a frequency), and sums of
// logarithms then differ in the last bit or not at all, so the logarithm must
// round as the C library's does behind Python: correctly in all but rare cases.
// math.Log is off by one unit in the last place for one frequency in 65.

// logTable remembers the logarithms of small integers: a dictionary of
// 349,046 words has 5,087 different frequencies.
type logTable struct {
	small []float64
	large map[uint64]float64
}

func newLogTable() logTable {
	return logTable{small: make([]float64, 1<<13), large: map[uint64]float64{}}
}

// log is logInteger(n), with log(0) taken as log(1) = 0 as jieba does.
func (t *logTable) log(n uint64) float64 {
	if n <= 1 {
		return 0
	}
	if n < uint64(len(t.small)) {
		if t.small[n] == 0 {
			t.small[n] = logInteger(n)
		}
		return t.small[n]
	}
	v, ok := t.large[n]
	if !ok {
		v = logInteger(n)
		t.large[n] = v
	}
	return v
}

// twofold is an unevaluated sum of two float64 with about 106 bits.
type twofold struct{ hi, lo float64 }

func (a twofold) add(b twofold) twofold {
	s := a.hi + b.hi
	t := s - a.hi
	return normal(s, (a.hi-(s-t))+(b.hi-t)+a.lo+b.lo)
}

func (a twofold) mul(b twofold) twofold {
	p := a.hi * b.hi
	e := math.FMA(a.hi, b.hi, -p)
	return normal(p, math.FMA(a.hi, b.lo, math.FMA(a.lo, b.hi, e)))
}

func normal(hi, lo float64) twofold {
	s := hi + lo
	return twofold{s, lo - (s - hi)}
}

func quotient(a, b float64) twofold {
	q := a / b
	return twofold{q, math.FMA(-q, b, a) / b}
}

// ln2 is the logarithm of 2 to 106 bits.
var ln2 = twofold{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56}

// logInteger is the natural logarithm of n, 0 < n < 2⁵², from
// log(2ᵏm) = k ln 2 + 2 atanh((m−1)/(m+1)), summed in twofold precision.
func logInteger(n uint64) float64 {
	m, k := math.Frexp(float64(n))
	if m < math.Sqrt2/2 {
		m, k = 2*m, k-1
	}
	s := quotient(m-1, m+1)
	square := s.mul(s)
	const terms = 20 // |s| ≤ 0.172: the first term left out is below 2⁻¹⁰⁶
	sum := quotient(1, 2*terms+1)
	for i := terms - 1; i >= 0; i-- {
		sum = sum.mul(square).add(quotient(1, float64(2*i+1)))
	}
	sum = sum.mul(s)
	return ln2.mul(twofold{hi: float64(k)}).add(twofold{2 * sum.hi, 2 * sum.lo}).hi
}
