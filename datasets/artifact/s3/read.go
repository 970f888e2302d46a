package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func tag(etag *string) string { return aws.ToString(etag) }

func (b *backend) Head(ctx context.Context, key string) (artifact.Info, error) {
	if err := artifact.CheckKey(key); err != nil {
		return artifact.Info{}, err
	}
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.bucket, Key: b.key(key)})
	if err != nil {
		return artifact.Info{}, b.translate("head", key, err, artifact.Condition{})
	}
	return artifact.Info{Key: key, Size: aws.ToInt64(out.ContentLength), ETag: tag(out.ETag), Modified: aws.ToTime(out.LastModified).UTC()}, nil
}

func (b *backend) Get(ctx context.Context, key string) (io.ReadCloser, artifact.Info, error) {
	if err := artifact.CheckKey(key); err != nil {
		return nil, artifact.Info{}, err
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.bucket, Key: b.key(key)})
	if err != nil {
		return nil, artifact.Info{}, b.translate("get", key, err, artifact.Condition{})
	}
	info := artifact.Info{Key: key, Size: aws.ToInt64(out.ContentLength), ETag: tag(out.ETag), Modified: aws.ToTime(out.LastModified).UTC()}
	return &body{ctx: ctx, b: b, key: key, etag: info.ETag, end: info.Size, r: out.Body}, info, nil
}

func (b *backend) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := artifact.CheckKey(key); err != nil {
		return nil, err
	}
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes from %d", key, n, off)
	}
	if n == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	out, err := b.getRange(ctx, key, off, n, "")
	if code(err) == "InvalidRange" {
		return io.NopCloser(strings.NewReader("")), nil // it begins at or behind the end
	} else if err != nil {
		return nil, b.translate("get", key, err, artifact.Condition{})
	}
	return &body{ctx: ctx, b: b, key: key, etag: tag(out.ETag), off: off, end: off + aws.ToInt64(out.ContentLength), r: out.Body}, nil
}

func (b *backend) getRange(ctx context.Context, key string, off, n int64, etag string) (*s3.GetObjectOutput, error) {
	in := &s3.GetObjectInput{Bucket: &b.bucket, Key: b.key(key), Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))}
	if etag != "" {
		in.IfMatch = &etag
	}
	return b.client.GetObject(ctx, in)
}

// maxReopens bounds how often a body that breaks off is opened again without having made progress.
const maxReopens = 4

// body reads an object and goes on where it was when the connection breaks: the SDK repeats requests, not bodies.
type body struct {
	ctx      context.Context
	b        *backend
	key      string
	etag     string
	off, end int64
	r        io.ReadCloser
	failures int
}

func (o *body) Read(p []byte) (int, error) {
	for {
		n, err := o.r.Read(p)
		o.off += int64(n)
		if n > 0 {
			o.failures = 0
		}
		switch {
		case err == nil:
			return n, nil
		case isChecksumMismatch(err):
			return n, &artifact.CorruptError{Store: "s3://" + o.b.bucket, Object: o.b.prefix + o.key, Want: "the checksum stored with it", Got: err.Error()}
		case err == io.EOF && o.off >= o.end:
			return n, io.EOF
		case n > 0:
			return n, nil // what broke off will do so again, and is dealt with then
		}
		if err := o.reopen(err); err != nil {
			return 0, err
		}
	}
}

// reopen continues at the present offset, in the same version of the object.
func (o *body) reopen(cause error) error {
	if o.off >= o.end {
		return io.EOF
	}
	for {
		o.failures++
		if o.failures > maxReopens || o.ctx.Err() != nil {
			return o.b.translate("get", o.key, cause, artifact.Condition{})
		}
		select {
		case <-o.ctx.Done():
			continue
		case <-time.After(time.Duration(o.failures*o.failures) * 50 * time.Millisecond):
		}
		out, err := o.b.getRange(o.ctx, o.key, o.off, o.end-o.off, o.etag)
		if err == nil {
			o.r.Close()
			o.r = out.Body
			return nil
		}
		if st := status(err); st >= 400 && st < 500 {
			return o.b.translate("get", o.key, err, artifact.Condition{IfMatch: o.etag})
		}
		cause = err
	}
}

func (o *body) Close() error { return o.r.Close() }

// isChecksumMismatch recognises the SDK's error for a body that differs from its checksum, which has no exported type.
func isChecksumMismatch(err error) bool {
	return !errors.Is(err, io.EOF) && strings.Contains(err.Error(), "checksum did not match")
}

func (b *backend) List(ctx context.Context, prefix string) iter.Seq2[artifact.Info, error] {
	return func(yield func(artifact.Info, error) bool) {
		if prefix != "" {
			if err := artifact.CheckKey(strings.TrimSuffix(prefix, "/")); err != nil {
				yield(artifact.Info{}, err)
				return
			}
		}
		pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.bucket, Prefix: b.key(prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(artifact.Info{}, b.translate("list", prefix, err, artifact.Condition{}))
				return
			}
			for _, o := range page.Contents {
				key := strings.TrimPrefix(aws.ToString(o.Key), b.prefix)
				if artifact.CheckKey(key) != nil {
					continue // not one of ours: a "directory" made by a console, say
				}
				info := artifact.Info{Key: key, Size: aws.ToInt64(o.Size), ETag: tag(o.ETag), Modified: aws.ToTime(o.LastModified).UTC()}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

func (b *backend) Delete(ctx context.Context, key string) error {
	if err := artifact.CheckKey(key); err != nil {
		return err
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.bucket, Key: b.key(key)})
	if err = b.translate("delete", key, err, artifact.Condition{}); errors.Is(err, artifact.ErrNotFound) {
		return nil
	}
	return err
}
