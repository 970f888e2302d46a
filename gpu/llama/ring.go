package llama

import "github.com/longalign/longalign-go/gpu"

// ring holds buffers of one kind by index (a layer). Either each index has its place on the device, or two places serve all in
// turn and host memory has the rest; the transfers then run beside the layer in hand.
type ring struct {
	dev   gpu.Device
	slots [][]gpu.Buffer // on the device
	host  [][]gpu.Buffer // by index; nil, or without buffers for those that stay on the device
	holds []int          // the index in each slot, -1 for none
	out   []gpu.Event    // by index: on its way to host memory
	in    []gpu.Event    // by index: on its way back
}

// reset forgets what the slots hold.
func (r *ring) reset(n int) {
	r.holds = r.holds[:0]
	for range r.slots {
		r.holds = append(r.holds, -1)
	}
	if len(r.out) != n {
		r.out, r.in = make([]gpu.Event, n), make([]gpu.Event, n)
	}
	clear(r.out)
	clear(r.in)
}

// at returns the buffers of index i on the device.
func (r *ring) at(i int) []gpu.Buffer { return r.slots[i%len(r.slots)] }

// write makes the place of i free to be written: what it held has left.
func (r *ring) write(i int) {
	s := i % len(r.slots)
	if old := r.holds[s]; old >= 0 && old != i {
		r.dev.Await(r.out[old])
		r.out[old] = nil
	}
	r.holds[s] = i
}

// send begins to copy i, which was just written, to host memory.
func (r *ring) send(i int) {
	if i >= len(r.host) {
		return
	}
	for k, h := range r.host[i] {
		r.out[i] = r.dev.Transfer(h, r.at(i)[k].Slice(0, h.Len())) // the last ends last
	}
}

// fetch begins to copy i back, unless it is there.
func (r *ring) fetch(i int) {
	if i < 0 || i >= len(r.host) || len(r.host[i]) == 0 || r.holds[i%len(r.slots)] == i {
		return
	}
	r.dev.Await(r.out[i])
	r.out[i] = nil
	r.write(i)
	for k, h := range r.host[i] {
		r.in[i] = r.dev.Transfer(r.at(i)[k].Slice(0, h.Len()), h)
	}
}

// ready lets what follows wait until i is there.
func (r *ring) ready(i int) {
	r.dev.Await(r.in[i])
	r.in[i] = nil
}

// settle lets what follows wait for all that leaves, and forgets what the slots hold.
func (r *ring) settle() {
	for i, e := range r.out {
		r.dev.Await(e)
		r.out[i] = nil
	}
	r.reset(len(r.out))
}
