package host

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// countedJob counts its parts and holds workers up, so that ends of runs meet starts of the next.
type countedJob struct{ done atomic.Int64 }

func (j *countedJob) part(worker, i int) {
	if i%3 == 0 {
		runtime.Gosched()
	}
	j.done.Add(1)
}

func TestARunEndsAfterAllItsPartsHoweverBusyTheMachine(t *testing.T) {
	const threads, parts = 3, 7
	stop := make(chan struct{})
	defer close(stop)
	for range 4 * runtime.GOMAXPROCS(0) { // others want the processors
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		}()
	}
	p := newPool(threads)
	defer p.close()
	for n := range 3000 {
		var j countedJob
		p.run(&j, parts)
		if got := j.done.Load(); got != parts {
			t.Fatalf("run %d returned after %d of %d parts", n, got, parts)
		}
		if got := p.running.Load(); got != 0 {
			t.Fatalf("run %d returned while %d workers were in it", n, got)
		}
	}
}
