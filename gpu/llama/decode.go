package llama

import (
	"errors"
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// prefillBlock is how many prompt tokens pass through the model at a time: enough for the matrix kernels to run at
// training speed, which on a card takes more, few enough that a long prompt's activations stay small.
func (m *Model) prefillBlock() int {
	if m.dev.Info().Kind == "cuda" {
		return 4096
	}
	return 512
}

// logitRows is how many rows of logits exist at once.
const logitRows = 64

// Decoder runs sequences token by token, keeping their keys and values. It shares its model's
// device and goroutine.
type Decoder struct {
	m      *Model
	ws     *workspace
	logits gpu.Buffer // [logitRows, V]
	host   []float64
}

// NewDecoder returns a decoder of m. Close frees it.
func (m *Model) NewDecoder() (*Decoder, error) {
	ws, err := newWorkspace(m, m.prefillBlock(), false)
	if err != nil {
		return nil, err
	}
	d := &Decoder{m: m, ws: ws, host: make([]float64, m.cfg.Vocab)}
	if d.logits, err = m.dev.Alloc(logitRows*m.cfg.Vocab, m.dtype); err != nil {
		ws.free()
		return nil, fmt.Errorf("logits of %d tokens: %w", logitRows, err)
	}
	return d, nil
}

// Close frees the decoder's memory, but not its sequences'.
func (d *Decoder) Close() {
	d.ws.free()
	d.m.dev.Free(d.logits)
}

// Sequence is one text in a decoder.
type Sequence struct {
	d        *Decoder
	cache    gpu.Buffer // of all layers
	layers   []layerCache
	capacity int
	n        int
	row      int
}

// Open makes room for a sequence of up to capacity tokens.
func (d *Decoder) Open(capacity int) (*Sequence, error) {
	c := d.m.cfg
	if capacity < 1 || capacity > c.MaxPositions {
		return nil, &LengthError{0, capacity, c.MaxPositions}
	}
	width := c.KVHeads * c.HeadDim
	s := &Sequence{d: d, capacity: capacity, layers: make([]layerCache, c.Layers)}
	total := 0
	for i := range s.layers {
		s.layers[i] = layerCache{window: c.Window(i), rows: cacheRows(c.Window(i), capacity, d.m.prefillBlock()), width: width}
		total += 2 * s.layers[i].rows * width
	}
	var err error
	if s.cache, err = d.m.dev.Alloc(total, d.m.dtype); err != nil {
		return nil, fmt.Errorf("keys and values of %d tokens need %d bytes; use a shorter context or fewer sequences at once: %w", capacity, d.m.CacheBytes(capacity), err)
	}
	at := 0
	take := func(n int) gpu.Buffer { b := s.cache.Slice(at, at+n); at += n; return b }
	for i := range s.layers {
		l := &s.layers[i]
		l.keys, l.values = take(l.rows*width), take(l.rows*width)
	}
	return s, nil
}

// Close frees the sequence's keys and values.
func (s *Sequence) Close() {
	if s.cache != nil {
		s.d.m.dev.Free(s.cache)
		s.cache = nil
	}
}

// Len returns the number of tokens held.
func (s *Sequence) Len() int { return s.n }

// segment is a run of new tokens of one sequence within a block.
type segment struct {
	seq *Sequence
	ids []int32
}

// forward runs the new tokens of all segments and leaves the head's input in a.h.
func (d *Decoder) forward(segments []segment) (*activations, error) {
	m, c := d.m, d.m.cfg
	var ids []int32
	for _, g := range segments {
		if g.seq.n+len(g.ids) > g.seq.capacity {
			return nil, &LengthError{0, g.seq.n + len(g.ids), g.seq.capacity}
		}
		for _, id := range g.ids {
			if id < 0 || int(id) >= c.Vocab {
				return nil, fmt.Errorf("token %d is outside the vocabulary of %d", id, c.Vocab)
			}
		}
		ids = append(ids, g.ids...)
		g.seq.row = m.rope.row(g.seq.capacity)
	}
	positions := d.ws.positions[:len(ids)]
	at := 0
	for _, g := range segments {
		// Asked again because another sequence may have moved the rows. Under dynamic scaling the
		// capacity counts as the sequence's length, so that all its keys share one base.
		g.seq.row = m.rope.row(g.seq.capacity)
		for i := range g.ids {
			positions[at] = int32(g.seq.row + g.seq.n + i)
			at++
		}
	}
	if err := m.rope.upload(); err != nil {
		return nil, err
	}
	a := d.ws.at(len(ids))
	s := &a.saved[0]
	m.dev.Embedding(a.stream(0), m.embed.w, ids, c.Hidden)
	for i := range m.layers {
		x, y := a.stream(i), a.stream(i+1)
		l := &m.layers[i]
		m.project(l, a, s, x, positions)
		shape := m.attention(i, nil)
		hq, hk := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
		if len(ids) == len(segments) {
			rows := make([]gpu.CachedRows, len(segments))
			for j, g := range segments {
				c := &g.seq.layers[i]
				rows[j] = gpu.CachedRows{Keys: c.keys, Values: c.values, Length: c.room(m.dev, g.seq.n, 1)}
			}
			m.dev.AttentionStep(s.attn.Slice(0, len(ids)*hq), s.q.Slice(0, len(ids)*hq), s.k.Slice(0, len(ids)*hk), s.v.Slice(0, len(ids)*hk), rows, shape)
			m.feedForward(l, a, s, x)
			m.down(l, a, s, y)
			continue
		}
		at := 0
		for _, g := range segments {
			n := len(g.ids)
			k, v, length := g.seq.layers[i].add(m.dev, s.k.Slice(at*hk, (at+n)*hk), s.v.Slice(at*hk, (at+n)*hk), g.seq.n, n)
			m.dev.AttentionCached(s.attn.Slice(at*hq, (at+n)*hq), s.q.Slice(at*hq, (at+n)*hq), k, v, n, length, shape)
			at += n
		}
		m.feedForward(l, a, s, x)
		m.down(l, a, s, y)
	}
	m.dev.RMSNorm(a.h, a.rstd, a.stream(len(m.layers)), m.final.w, c.Hidden, c.NormEps)
	for _, g := range segments {
		g.seq.n += len(g.ids)
	}
	return a, nil
}

// forwardAgain is forward for what is run over and over, with the same number of new tokens each: a device may repeat it faster.
func (d *Decoder) forwardAgain(segments []segment) (a *activations, err error) {
	again, ok := d.m.dev.(gpu.Repeater)
	if !ok {
		return d.forward(segments)
	}
	again.Repeat(func() { a, err = d.forward(segments) })
	return a, err
}

// emit computes the logits of rows [from, to) and hands each to visit with its row. The slice is reused.
func (d *Decoder) emit(a *activations, from, to int, visit func(row int, logits []float64) error) error {
	m, v := d.m, d.m.cfg.Vocab
	for from < to {
		n := min(logitRows, to-from)
		m.dev.Linear(d.logits.Slice(0, n*v), a.h.Slice(from*m.cfg.Hidden, (from+n)*m.cfg.Hidden), m.head.Linear)
		for i := range n {
			m.dev.Download64(d.host, d.logits.Slice(i*v, (i+1)*v))
			if err := m.dev.Sync(); err != nil {
				return err
			}
			if err := visit(from+i, d.host); err != nil {
				return err
			}
		}
		from += n
	}
	return m.dev.Sync()
}

// Feed appends ids to the sequence, in blocks. With every set, visit gets the logits after each token of ids, else
// only those after the last; the slice of logits is reused.
func (s *Sequence) Feed(ids []int32, every bool, visit func(i int, logits []float64) error) error {
	if len(ids) == 0 {
		return errors.New("no tokens to feed; a prompt holds at least one")
	}
	step := s.d.m.prefillBlock()
	for start := 0; start < len(ids); start += step {
		block := ids[start:min(len(ids), start+step)]
		a, err := s.d.forward([]segment{{s, block}})
		if err != nil {
			return err
		}
		from := len(block)
		if every {
			from = 0
		} else if start+len(block) == len(ids) {
			from--
		}
		if err := s.d.emit(a, from, len(block), func(row int, logits []float64) error { return visit(start+row, logits) }); err != nil {
			return err
		}
	}
	return nil
}

// Step appends one token to each of several sequences at once and hands visit the logits after it.
func (d *Decoder) Step(seqs []*Sequence, ids []int32, visit func(i int, logits []float64) error) error {
	step := d.m.prefillBlock()
	for start := 0; start < len(seqs); start += step {
		end := min(len(seqs), start+step)
		segments := make([]segment, 0, end-start)
		for i := start; i < end; i++ {
			segments = append(segments, segment{seqs[i], ids[i : i+1]})
		}
		a, err := d.forwardAgain(segments)
		if err != nil {
			return err
		}
		if err := d.emit(a, 0, end-start, func(row int, logits []float64) error { return visit(start+row, logits) }); err != nil {
			return err
		}
	}
	return nil
}
