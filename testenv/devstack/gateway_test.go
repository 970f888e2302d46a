package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

func TestAKillInTheMiddleOfAPutLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			p := start(t, dir, "--headless")
			p.put(t, "replaced", "old")

			reached := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var puts sync.WaitGroup
			for _, key := range []string{"new", "replaced"} {
				puts.Go(func() {
					body := &stalling{size: 8 << 20, at: 6 << 20, reached: reached, ctx: ctx}
					_, err := p.s3(t).PutObject(ctx, &s3.PutObjectInput{
						Bucket: &p.Bucket, Key: &key, Body: body, ContentLength: aws.Int64(8 << 20),
					}, s3.WithAPIOptions(unsignedPayload))
					if err == nil {
						t.Errorf("the interrupted PUT of %s was acknowledged", key)
					}
				})
			}
			<-reached
			<-reached
			_ = p.signal(t, syscall.SIGKILL)
			cancel()
			puts.Wait()

			p = start(t, dir, "--headless")
			if diff := cmp.Diff([]string{"replaced"}, p.list(t)); diff != "" {
				t.Errorf("objects: %s", diff)
			}
			if got := p.get(t, "replaced"); got != "old" {
				t.Errorf("got %d bytes, want the old object", len(got))
			}
			_, err := p.s3(t).PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &p.Bucket, Key: aws.String("new"), Body: strings.NewReader("new"), IfNoneMatch: aws.String("*"),
			})
			if err != nil {
				t.Errorf("the key is not free: %v", err)
			}
		})
	}
}

func TestAnUploadGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			p := start(t, dir, "--headless")
			key := aws.String("large")
			upload, err := p.s3(t).CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &p.Bucket, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			parts := []string{strings.Repeat("a", 5<<20), "tail"}
			var completed completedParts
			for i, part := range parts {
				if i == 1 {
					_ = p.signal(t, syscall.SIGKILL)
					claimByHand(t, dir, p.Bucket, *upload.UploadId)
					p = start(t, dir, "--headless")
				}
				out, err := p.s3(t).UploadPart(t.Context(), &s3.UploadPartInput{
					Bucket: &p.Bucket, Key: key, UploadId: upload.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: strings.NewReader(part),
				})
				if err != nil {
					t.Fatalf("part %d: %v", i+1, err)
				}
				completed.add(int32(i+1), out.ETag)
			}
			_, err = p.s3(t).CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: &p.Bucket, Key: key, UploadId: upload.UploadId, MultipartUpload: completed.upload(), IfNoneMatch: aws.String("*"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.get(t, *key); got != strings.Join(parts, "") {
				t.Errorf("got %d bytes, want %d", len(got), 5<<20+4)
			}
		})
	}
}

func TestOfManyConditionalPutsOneWins(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, dataDir(t), "--headless")
			const writers = 16
			for round := range 5 {
				key := fmt.Sprintf("pointer/%d", round)
				var wins, losses atomic.Int32
				var winner atomic.Value
				var all sync.WaitGroup
				for w := range writers {
					all.Go(func() {
						body := fmt.Sprintf("writer %d", w)
						_, err := p.s3(t).PutObject(t.Context(), &s3.PutObjectInput{
							Bucket: &p.Bucket, Key: &key, Body: strings.NewReader(body), IfNoneMatch: aws.String("*"),
						})
						var api smithy.APIError
						switch {
						case err == nil:
							wins.Add(1)
							winner.Store(body)
						case errors.As(err, &api) && api.ErrorCode() == "PreconditionFailed":
							losses.Add(1)
						default:
							t.Error(err)
						}
					})
				}
				all.Wait()
				if wins.Load() != 1 || losses.Load() != writers-1 {
					t.Fatalf("round %d: %d won and %d were refused, want 1 and %d", round, wins.Load(), losses.Load(), writers-1)
				}
				if got := p.get(t, key); got != winner.Load() {
					t.Errorf("round %d: the object is %q, the winner wrote %q", round, got, winner.Load())
				}
			}
		})
	}
}
