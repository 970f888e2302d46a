package activities

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
)

// busyCard is the error of a card that another process has.
type busyCard struct{}

func (busyCard) Error() string   { return "process 7 holds the card" }
func (busyCard) InUse() bool     { return true }
func (busyCard) Elsewhere() bool { return true }
func (busyCard) Sticky() bool    { return false }

// A dry run on a machine whose card is in use, or that has none of the kind that the run asks for, foretells by the processor and says
// so.
func TestARehearsalWithoutTheDeviceThatIsAskedForSaysSo(t *testing.T) {
	for name, tt := range map[string]struct {
		asks string
		card error // of auto and cuda
		lack []string
	}{
		"the card is in use":                {"auto", busyCard{}, []string{"device auto: process 7 holds the card"}},
		"the card is in use and asked for":  {"cuda", busyCard{}, []string{"device auto: process 7 holds the card"}},
		"the processor is asked for":        {"host", busyCard{}, []string{"device auto: process 7 holds the card"}},
		"the device that is there is asked": {"auto", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTiny(t)
			open := p.OpenDevice
			p.OpenDevice = func(ctx context.Context, name string) (gpu.Device, error) {
				if name != "host" && tt.card != nil {
					return nil, tt.card
				}
				return open(ctx, "host")
			}
			r := p.rehearse(t)
			for range 2 {
				if got := r.Describe(t.Context(), tt.asks); got.Kind != "host" {
					t.Errorf("the device is %+v", got)
				}
			}
			if diff := cmp.Diff(tt.lack, r.Lacking()); diff != "" {
				t.Error(diff)
			}
			d, err := r.a.device(t.Context(), "auto", r.Device.Class) // as what is tried does
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
		})
	}
}

// small is a device with room for nothing.
type small struct{ gpu.Device }

func (s small) Info() gpu.Info {
	i := s.Device.Info()
	i.Memory, i.HostMemory = 1<<10, 1<<10
	return i
}

// What does not fit on the machine of a dry run fails only where the run would use its device.
func TestARehearsalForgivesWhatDoesNotFitWhereTheDeviceIsElsewhere(t *testing.T) {
	for name, tt := range map[string]struct {
		asks     string
		busy     bool // what auto opens
		problems int
	}{
		"the device is elsewhere":    {"cuda", false, 0},
		"the device is here":         {"auto", false, 1},
		"the device is in use":       {"auto", true, 0},
		"the processor is asked for": {"host", true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTiny(t)
			call := p.training(p.upToBatches(), func(o *datasets.TrainParams) { o.Device = tt.asks })
			open := p.OpenDevice
			p.OpenDevice = func(ctx context.Context, name string) (gpu.Device, error) {
				if name == "cuda" || name == "auto" && tt.busy {
					return nil, busyCard{}
				}
				d, err := open(ctx, "host")
				return small{d}, err
			}
			r := p.rehearse(t)
			found, err := r.Resolve(t.Context(), call)
			if err != nil || found.Hit {
				t.Fatalf("%+v, %v", found, err)
			}
			call.Key = found.Key
			if _, err := r.Make(t.Context(), call); err != nil {
				t.Fatal(err)
			}
			if got := r.Problems(); len(got) != tt.problems {
				t.Errorf("problems: %+v", got)
			}
			if f := r.Foreseen()[0].Forecast; tt.problems == 0 && (f.Memory != nil || f.StateBytes == 0) {
				t.Errorf("it is foretold to take %+v", f)
			}
		})
	}
}
