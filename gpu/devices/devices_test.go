package devices

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestNamesThatMeanNothingAreRefused(t *testing.T) {
	for name, want := range map[string]string{"tpu": "use auto, host or cuda", "cuda:0,quick": "use fast"} {
		if _, err := Open(context.Background(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) returns %v", name, err)
		}
	}
}

func TestTheProcessorIsThereAndOthersAreSaid(t *testing.T) {
	for _, name := range []string{"host", "auto", ""} {
		if Card() == nil && name != "host" {
			continue
		}
		d, err := Open(t.Context(), name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if kind := d.Info().Kind; kind != "host" {
			t.Errorf("%q opens a device of kind %q", name, kind)
		}
		d.Close()
	}
	if Card() == nil {
		return
	}
	// Without a card, or without CUDA in this program, another worker may have one.
	_, err := Open(t.Context(), "cuda")
	var elsewhere interface{ Elsewhere() bool }
	if !errors.As(err, &elsewhere) || !elsewhere.Elsewhere() {
		t.Errorf("got %v", err)
	}
}
