package datasets

import "fmt"

// Idle is how long devices would wait for each other (Figure 5). It is simulated from times of
// single micro-batches: no more than one device was there.
type Idle struct {
	// Simulated is always true, so that no table forgets to say it.
	Simulated bool `json:"simulated"`
	Devices   int  `json:"devices"`
	// Seconds is how long the steps would take, BusySeconds the sum of all micro-batches.
	Seconds     float64 `json:"seconds"`
	BusySeconds float64 `json:"busy_seconds"`
	// IdleShare is the share of device time spent waiting: 1 - BusySeconds / (Devices × Seconds).
	IdleShare float64 `json:"idle_share"`
}

// SimulateIdle runs p on several devices, given the seconds each of its micro-batches took: micro-batch j of a
// step goes to device j mod devices, as a distributed sampler deals them, and the step ends with
// its slowest device, when gradients are summed. That sum itself is taken to be free.
func SimulateIdle(p Plan, seconds []float64, devices int) (Idle, error) {
	idle := Idle{Simulated: true, Devices: devices}
	if devices < 1 {
		return idle, fmt.Errorf("idle time: %d devices", devices)
	}
	if len(seconds) != len(p.MicroBatchEnds) {
		return idle, fmt.Errorf("idle time: %d measured micro-batches, the plan has %d", len(seconds), len(p.MicroBatchEnds))
	}
	busy := make([]float64, devices)
	for s := range p.Steps() {
		clear(busy)
		from, to := p.MicroBatches(s)
		slowest := 0.0
		for m := from; m < to; m++ {
			if !(seconds[m] >= 0) {
				return idle, fmt.Errorf("idle time: micro-batch %d took %v seconds", m, seconds[m])
			}
			device := (m - from) % devices
			busy[device] += seconds[m]
			slowest = max(slowest, busy[device])
			idle.BusySeconds += seconds[m]
		}
		idle.Seconds += slowest
	}
	if idle.Seconds > 0 {
		idle.IdleShare = 1 - idle.BusySeconds/(float64(devices)*idle.Seconds)
	}
	return idle, nil
}
