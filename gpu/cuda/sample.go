package cuda

import (
	"github.com/longalign/longalign-go/gpu"
)

var _ gpu.Sampler = (*Device)(nil)

// Sample draws tokens on the card.
func (d *Device) Sample(ids []int32, logProbs []float64, logits gpu.Buffer, vocab int, draws []gpu.Draw) {
	o := d.begin("Sample")
	defer o.end()
	n := len(draws)
	b := o.want("logits", logits, n*vocab, gpu.Float32, gpu.BFloat16)
	if !o.failed() && (vocab < 1 || len(ids) != n || len(logProbs) != n) {
		o.refuse("%d ids and %d log-probabilities of %d draws from a vocabulary of %d", len(ids), len(logProbs), n, vocab)
	}
	if o.failed() || n == 0 {
		return
	}
	type entry struct {
		random, share uint64
		scale         float32
		_             int32
	}
	list := make([]entry, n)
	for i, draw := range draws {
		list[i] = entry{random: draw.DrawRandom(), share: draw.KeptShare()}
		if draw.Temperature >= gpu.MinTemperature {
			list[i].scale = gpu.DrawScale(draw.Temperature)
		}
	}
	o.work(0, float64(b.bytes()))
	onCard, drawn := o.scratch("draws", len(memoryBytes(list))), o.scratch("drawn", 8*n)
	if !o.failed() {
		o.try(d.m.upload(onCard, memoryBytes(list)))
	}
	launch(o, "sample", "T="+b.element(), over(n), 512, (256+2*512+8)*8+17*4+4, struct {
		ids, probs, logits, draws uint64
		vocab                     int32
		_                         int32
	}{drawn, drawn + uint64(4*n), b.address, onCard, int32(vocab), 0})
	probs := make([]float32, n)
	if !o.failed() {
		o.try(d.m.download(memoryBytes(ids), drawn))
	}
	if !o.failed() {
		o.try(d.m.download(memoryBytes(probs), drawn+uint64(4*n)))
	}
	for i, p := range probs {
		logProbs[i] = float64(p)
	}
}
