package devices

import (
	"context"
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

func TestHostOpens(t *testing.T) {
	d, err := Open(context.Background(), "host")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
