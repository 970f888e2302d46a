package s3_test

import (
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/artifact"
	_ "github.com/longalign/longalign-go/datasets/artifact/s3"
	"github.com/longalign/longalign-go/datasets/artifact/storetest"
	"github.com/longalign/longalign-go/testenv"
)

// gateway points the AWS environment at the shared S3 gateway.
func gateway(t *testing.T) testenv.Endpoint {
	t.Helper()
	e := testenv.Shared(t)
	env, err := e.Env()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range env {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
	return e
}

func open(t *testing.T, uri string) *artifact.Store {
	t.Helper()
	s, err := artifact.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3(t *testing.T) {
	e := gateway(t)
	storetest.Run(t, func(t *testing.T) *artifact.Store { return open(t, e.StoreURI(testenv.Unique(t))) })
}
