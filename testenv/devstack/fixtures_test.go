package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	"go.temporal.io/sdk/temporal"
)

// bothLayouts make a data directory for either layout: one with a sidecar keeps it.
var bothLayouts = map[string]func(*testing.T) string{
	"attributes in the filesystem": func(t *testing.T) string { return t.TempDir() },
	"attributes in a sidecar": func(t *testing.T) string {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "metadata"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	},
}

func temporalKeyword(name, value string) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(name).ValueSet(value))
}

// unsignedPayload lets a body that can be read only once be sent over plain http.
func unsignedPayload(stack *middleware.Stack) error {
	return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
}

// stalling is a body that stops in the middle until the request is given up.
type stalling struct {
	size, at, sent int
	reached        chan<- struct{}
	ctx            context.Context
}

func (s *stalling) Read(p []byte) (int, error) {
	if s.sent == s.at {
		s.reached <- struct{}{}
		<-s.ctx.Done()
		return 0, errors.New("given up")
	}
	n := min(len(p), s.at-s.sent)
	clear(p[:n])
	s.sent += n
	return n, nil
}

var _ io.Reader = (*stalling)(nil)

type completedParts []types.CompletedPart

func (c *completedParts) add(number int32, etag *string) {
	*c = append(*c, types.CompletedPart{PartNumber: &number, ETag: etag})
}

func (c *completedParts) upload() *types.CompletedMultipartUpload {
	return &types.CompletedMultipartUpload{Parts: *c}
}

// claimByHand leaves an upload as a gateway does that is killed while it completes it.
func claimByHand(t *testing.T, dir, bucket, uploadID string) {
	t.Helper()
	for _, root := range []string{"s3", "metadata"} {
		found, err := filepath.Glob(filepath.Join(dir, root, bucket, ".sgwtmp", "multipart", "*", uploadID))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			if err := os.Rename(name, name+".0123abcd-2.inprogress"); err != nil {
				t.Fatal(err)
			}
		}
		if root == "s3" && len(found) != 1 {
			t.Fatalf("found %d directories of upload %s, want 1", len(found), uploadID)
		}
	}
}
