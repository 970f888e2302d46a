package llama

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
)

// RopeScaling says how rotary angles are stretched beyond the context a model was trained with.
// Types: "" (none), linear, dynamic, llama3, yarn; formulas as in Hugging Face.
type RopeScaling struct {
	Type        string
	Factor      float64
	OriginalMax int // context before scaling; 0 where linear scaling does not name it
	// llama3
	LowFreq, HighFreq float64
	// yarn
	BetaFast, BetaSlow float64
	AttentionFactor    float64 // 0: derived from Factor
	NoTruncate         bool
}

// parseRopeScaling reads rope_scaling or rope_parameters; theta is 0 unless given in it.
func parseRopeScaling(raw json.RawMessage) (rs RopeScaling, theta float64, err error) {
	var f struct {
		Type            string   `json:"type"`
		RopeType        string   `json:"rope_type"`
		Factor          *float64 `json:"factor"`
		OriginalMax     int      `json:"original_max_position_embeddings"`
		LowFreq         float64  `json:"low_freq_factor"`
		HighFreq        float64  `json:"high_freq_factor"`
		BetaFast        *float64 `json:"beta_fast"`
		BetaSlow        *float64 `json:"beta_slow"`
		AttentionFactor *float64 `json:"attention_factor"`
		MScale          *float64 `json:"mscale"`
		MScaleAllDim    *float64 `json:"mscale_all_dim"`
		Truncate        *bool    `json:"truncate"`
		Finetuned       bool     `json:"finetuned"` // a remark, not a parameter
		Theta           *float64 `json:"rope_theta"`
		Partial         *float64 `json:"partial_rotary_factor"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return rs, 0, err
	}
	if f.Type != "" && f.RopeType != "" && f.Type != f.RopeType {
		return rs, 0, fmt.Errorf("type is %q and rope_type %q", f.Type, f.RopeType)
	}
	if f.Partial != nil && *f.Partial != 1 {
		return rs, 0, fmt.Errorf("partial_rotary_factor %v is not supported", *f.Partial)
	}
	if f.Theta != nil {
		if theta = *f.Theta; !(theta > 0) {
			return rs, 0, fmt.Errorf("rope_theta is %v; it must be positive", theta)
		}
	}
	rs.Type = f.RopeType
	if rs.Type == "" {
		rs.Type = f.Type
	}
	rs.OriginalMax = f.OriginalMax
	if rs.OriginalMax < 0 {
		return rs, 0, fmt.Errorf("original_max_position_embeddings is %d; it must be positive", rs.OriginalMax)
	}
	switch rs.Type {
	case "", "default":
		rs.Type = ""
		return rs, theta, nil
	case "linear", "dynamic":
	case "llama3":
		rs.LowFreq, rs.HighFreq = f.LowFreq, f.HighFreq
		if !(rs.LowFreq > 0 && rs.HighFreq > rs.LowFreq) {
			return rs, 0, fmt.Errorf("llama3 needs 0 < low_freq_factor < high_freq_factor, got %v and %v", rs.LowFreq, rs.HighFreq)
		}
		if rs.OriginalMax == 0 {
			return rs, 0, fmt.Errorf("llama3 needs original_max_position_embeddings")
		}
	case "yarn":
		rs.BetaFast, rs.BetaSlow = 32, 1
		if f.BetaFast != nil {
			rs.BetaFast = *f.BetaFast
		}
		if f.BetaSlow != nil {
			rs.BetaSlow = *f.BetaSlow
		}
		if !(rs.BetaFast > rs.BetaSlow && rs.BetaSlow > 0) {
			return rs, 0, fmt.Errorf("yarn needs beta_fast > beta_slow > 0, got %v and %v", rs.BetaFast, rs.BetaSlow)
		}
		rs.NoTruncate = f.Truncate != nil && !*f.Truncate
		switch {
		case f.AttentionFactor != nil:
			if rs.AttentionFactor = *f.AttentionFactor; !(rs.AttentionFactor > 0) {
				return rs, 0, fmt.Errorf("attention_factor is %v; it must be positive", rs.AttentionFactor)
			}
		case f.MScale != nil && f.MScaleAllDim != nil && f.Factor != nil && *f.MScale != 0 && *f.MScaleAllDim != 0:
			rs.AttentionFactor = yarnScale(*f.Factor, *f.MScale) / yarnScale(*f.Factor, *f.MScaleAllDim)
			if !(rs.AttentionFactor > 0) || math.IsInf(rs.AttentionFactor, 0) {
				return rs, 0, fmt.Errorf("mscale %v and mscale_all_dim %v make an attention factor of %v; it must be positive", *f.MScale, *f.MScaleAllDim, rs.AttentionFactor)
			}
		}
	default:
		return rs, 0, fmt.Errorf("type %q is not supported; supported are linear, dynamic, llama3 and yarn", rs.Type)
	}
	if f.Factor == nil || !(*f.Factor >= 1) || math.IsInf(*f.Factor, 0) {
		return rs, 0, fmt.Errorf("type %q needs a factor of at least 1", rs.Type)
	}
	rs.Factor = *f.Factor
	return rs, theta, nil
}

// context returns how many tokens a model takes whose file names a number of positions: those that the scaling stretches its
// original context to, where that is more, as vLLM counts them. (Hugging Face sets no limit.) In llama3's files the
// positions are those after scaling.
func (s RopeScaling) context(positions int) int {
	switch s.Type {
	case "linear", "dynamic", "yarn":
		return max(positions, int(min(float64(cmp.Or(s.OriginalMax, positions))*s.Factor, 1<<30)))
	}
	return positions
}

func yarnScale(factor, m float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*m*math.Log(factor) + 1
}

// inverseFrequencies returns the angle per position of each rotated pair, and the factor on cos and sin. length is
// that of the sequence; only dynamic scaling depends on it.
func (c *Config) inverseFrequencies(length int) (inv []float64, scale float64) {
	n := c.Rotary / 2
	dim := float64(c.Rotary)
	s := c.RopeScaling
	base := c.RopeTheta
	if s.Type == "dynamic" && length > s.OriginalMax && c.Rotary > 2 {
		base *= math.Pow(s.Factor*float64(length)/float64(s.OriginalMax)-(s.Factor-1), dim/(dim-2))
	}
	inv = make([]float64, n)
	for i := range inv {
		inv[i] = 1 / math.Pow(base, float64(2*i)/dim)
	}
	scale = 1
	switch s.Type {
	case "linear":
		for i := range inv {
			inv[i] /= s.Factor
		}
	case "llama3":
		old := float64(s.OriginalMax)
		for i, f := range inv {
			wavelength := 2 * math.Pi / f
			switch {
			case wavelength > old/s.LowFreq:
				inv[i] = f / s.Factor
			case wavelength >= old/s.HighFreq:
				smooth := (old/wavelength - s.LowFreq) / (s.HighFreq - s.LowFreq)
				inv[i] = (1-smooth)*f/s.Factor + smooth*f
			}
		}
	case "yarn":
		// Pairs that turn often within the old context keep their frequency, slow ones are interpolated.
		pair := func(turns float64) float64 {
			return dim * math.Log(float64(s.OriginalMax)/(turns*2*math.Pi)) / (2 * math.Log(base))
		}
		low, high := pair(s.BetaFast), pair(s.BetaSlow)
		if !s.NoTruncate {
			low, high = math.Floor(low), math.Ceil(high)
		}
		low, high = max(low, 0), min(high, dim-1)
		if low == high {
			high += 0.001
		}
		for i, f := range inv {
			ramp := min(1, max(0, (float64(i)-low)/(high-low)))
			inv[i] = f/s.Factor*ramp + f*(1-ramp)
		}
		scale = s.AttentionFactor
		if scale == 0 {
			scale = yarnScale(s.Factor, 1)
		}
	}
	return inv, scale
}
