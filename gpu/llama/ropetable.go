package llama

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
)

// ropeTable holds the cosines and sines of rotary positions on the device. Rows [0, rows) are
// positions. Under dynamic scaling a sequence longer than the original context has
// angles of its own; its rows follow as a block for its length.
type ropeTable struct {
	cfg   *Config
	dev   gpu.Device
	dtype gpu.DType

	cos, sin gpu.Buffer
	hostCos  []float64
	hostSin  []float64
	plain    int         // rows of plain positions
	blocks   map[int]int // sequence length → first row
	stale    bool
}

func (r *ropeTable) dynamic(length int) bool {
	s := r.cfg.RopeScaling
	return s.Type == "dynamic" && length > s.OriginalMax
}

func (r *ropeTable) appendRows(n, length int) {
	inv, scale := r.cfg.inverseFrequencies(length)
	for p := range n {
		for _, f := range inv {
			sin, cos := math.Sincos(float64(p) * f)
			r.hostCos = append(r.hostCos, cos*scale)
			r.hostSin = append(r.hostSin, sin*scale)
		}
	}
	r.stale = true
}

// row returns the row of position 0 of a sequence of the given length, making the rows if needed.
func (r *ropeTable) row(length int) int {
	if r.dynamic(length) {
		if at, ok := r.blocks[length]; ok {
			return at
		}
		at := len(r.hostCos) / (r.cfg.Rotary / 2)
		r.appendRows(length, length)
		r.blocks[length] = at
		return at
	}
	if length > r.plain {
		n := 64
		for n < length {
			n *= 2
		}
		if s := r.cfg.RopeScaling; s.Type == "dynamic" {
			n = min(n, s.OriginalMax)
		}
		// Plain rows come first, so blocks behind them must be made anew.
		r.blocks, r.hostCos, r.hostSin = map[int]int{}, nil, nil
		r.appendRows(n, 0)
		r.plain = n
	}
	return 0
}

// positions writes the table row of each token of a micro-batch.
func (r *ropeTable) positions(dst []int32, pack *datasets.Pack) error {
	cu := pack.CuSeqlens
	if len(r.blocks) > 64 { // bounds the table
		r.blocks, r.hostCos, r.hostSin, r.plain = map[int]int{}, nil, nil, 0
	}
	// Two passes: making a row may move others.
	for pass := range 2 {
		for i := range len(cu) - 1 {
			n := int(cu[i+1] - cu[i])
			scaled := n
			if r.cfg.RopeScaling.Type == "dynamic" {
				scaled = learned(pack, i)
			}
			at := r.row(scaled)
			if pass == 1 {
				for p := range n {
					dst[int(cu[i])+p] = int32(at + min(p, scaled-1))
				}
			}
		}
	}
	return r.upload()
}

// learned returns the length of sequence i up to its last target. What follows counts for no target, padding or not, so that this
// is the length that scaling goes by: else the loss would depend on the layout.
func learned(p *datasets.Pack, i int) int {
	from, to := int(p.CuSeqlens[i]), int(p.CuSeqlens[i+1])
	if p.Labels != nil {
		for to > from+1 && p.Labels[to-1] == datasets.IgnoreIndex {
			to--
		}
	}
	return to - from
}

func (r *ropeTable) upload() error {
	if !r.stale {
		return nil
	}
	err := r.dev.Sync() // nothing queued may still read the old table
	if err != nil {
		return err
	}
	r.free()
	if r.cos, err = r.dev.Alloc(len(r.hostCos), r.dtype); err == nil {
		r.sin, err = r.dev.Alloc(len(r.hostSin), r.dtype)
	}
	if err != nil {
		return fmt.Errorf("rotary table of %d positions: %w", len(r.hostCos)/(r.cfg.Rotary/2), err)
	}
	r.dev.Upload64(r.cos, r.hostCos)
	r.dev.Upload64(r.sin, r.hostSin)
	r.stale = false
	return nil
}

func (r *ropeTable) free() {
	for _, b := range []gpu.Buffer{r.cos, r.sin} {
		if b != nil {
			r.dev.Free(b)
		}
	}
	r.cos, r.sin, r.stale = nil, nil, len(r.hostCos) > 0
}
