package llama

import "github.com/longalign/longalign-go/gpu"

// cacheStep is by how many tokens at least the cache of a layer with a window moves on. It is a multiple of the host's
// block of keys, so that a query's keys fall into the same blocks, and its result has the same bits, as without moving.
const cacheStep = 192

// cacheRows returns how many tokens a layer keeps of a sequence of up to capacity: all of them, or with a
// window its last ones, a block of new ones and what moving in steps leaves behind.
func cacheRows(window, capacity, block int) int {
	if window == 0 {
		return capacity
	}
	return min(capacity, window-1+cacheStep-1+block)
}

// layerCache holds the keys and values of the last tokens of a sequence in one layer.
type layerCache struct {
	keys, values gpu.Buffer // [rows,G,E]
	rows, width  int        // width is G·E
	window       int
	base         int // the token in row 0
}

// room makes room for n tokens after the held ones and returns how many rows there are then. With a window it drops what no later
// token sees, if there is no room else.
func (c *layerCache) room(dev gpu.Device, held, n int) (length int) {
	if held+n-c.base > c.rows {
		from := max(0, held-(c.window-1)) / cacheStep * cacheStep
		c.move(dev, from-c.base, held-from)
		c.base = from
	}
	return held - c.base + n
}

// add appends the keys and values of n tokens to the held ones and returns the whole with its length.
func (c *layerCache) add(dev gpu.Device, keys, values gpu.Buffer, held, n int) (k, v gpu.Buffer, length int) {
	end := c.room(dev, held, n)
	at := end - n
	dev.Copy(c.keys.Slice(at*c.width, end*c.width), keys)
	dev.Copy(c.values.Slice(at*c.width, end*c.width), values)
	return c.keys, c.values, end
}

// move copies keep rows from row shift on to the front, in pieces that do not overlap: devices may copy in any order.
func (c *layerCache) move(dev gpu.Device, shift, keep int) {
	for _, b := range []gpu.Buffer{c.keys, c.values} {
		for done := 0; done < keep; done += shift {
			n := min(shift, keep-done)
			dev.Copy(b.Slice(done*c.width, (done+n)*c.width), b.Slice((done+shift)*c.width, (done+shift+n)*c.width))
		}
	}
}

// CacheBytes returns the memory of the keys and values of a sequence of up to capacity tokens. Layers with a
// window keep little more than the window.
func (m *Model) CacheBytes(capacity int) int64 {
	var rows int64
	for i := range m.cfg.Layers {
		rows += int64(cacheRows(m.cfg.Window(i), capacity, m.prefillBlock()))
	}
	return 2 * rows * int64(m.cfg.KVHeads*m.cfg.HeadDim) * int64(m.dtype.Size())
}
