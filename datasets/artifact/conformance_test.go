package artifact_test

import (
	"testing"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/artifact/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *artifact.Store { return artifact.New(artifact.NewMemory(), "mem://"+t.Name()) })
}

func TestDirectory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *artifact.Store {
		s, err := artifact.Open(t.Context(), "file://"+t.TempDir()+"/store")
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
