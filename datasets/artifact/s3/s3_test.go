package s3_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/artifact"
	_ "github.com/longalign/longalign-go/datasets/artifact/s3"
	"github.com/longalign/longalign-go/datasets/artifact/storetest"
)

func TestS3(t *testing.T) {
	if os.Getenv("AWS_ENDPOINT_URL_S3") == "" {
		t.Skip()
	}
	storetest.Run(t, func(t *testing.T) *artifact.Store {
		s, err := artifact.Open(t.Context(), "s3://bucket/storetest/"+strings.ToLower(rand.Text()))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
