package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/longalign/longalign-go/datasets/artifact"
)

const (
	// minPart is the least part size; parts grow where more than maxParts of them would be needed.
	minPart  = artifact.PartSize
	maxParts = 10_000
	// buffers is how many parts are in memory, being read or sent.
	buffers = 3
	// conflicts is how often a completion is repeated that another writer's completion held up, and how often the object is
	// looked for that another writer's completion should have made.
	conflicts = 5
)

func partSize(size int64) int64 {
	const step = 1 << 20
	n := (size + maxParts - 1) / maxParts
	return max(minPart, (n+step-1)/step*step)
}

func (b *backend) Put(ctx context.Context, key string, r io.Reader, size int64, cond artifact.Condition) (string, error) {
	if err := artifact.CheckKey(key); err != nil {
		return "", err
	}
	r = artifact.Body(ctx, r, size)
	n := partSize(size)
	if size >= 0 && size <= n {
		n = size + 1 // one more byte, to see that there is none
	}
	first := make([]byte, n)
	got, err := io.ReadFull(r, first)
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return b.putWhole(ctx, key, first[:got], cond)
	case err != nil:
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	return b.putParts(ctx, key, first, r, cond)
}

func (b *backend) putWhole(ctx context.Context, key string, data []byte, cond artifact.Condition) (string, error) {
	sum := sha256.Sum256(data)
	in := &s3.PutObjectInput{
		Bucket: &b.bucket, Key: b.key(key), Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
	in.IfNoneMatch, in.IfMatch = headers(cond)
	out, err := b.client.PutObject(ctx, in)
	if err != nil {
		return "", b.translate("put", key, err, cond)
	}
	return tag(out.ETag), nil
}

func headers(cond artifact.Condition) (ifNoneMatch, ifMatch *string) {
	if cond.IfNoneMatch {
		ifNoneMatch = aws.String("*")
	}
	if cond.IfMatch != "" {
		ifMatch = &cond.IfMatch
	}
	return ifNoneMatch, ifMatch
}

// upload is a multipart upload under way.
type upload struct {
	b      *backend
	key    string
	id     string
	stored map[int32]types.Part // what an earlier attempt has sent

	mu    sync.Mutex
	parts []types.CompletedPart // by part number − 1
	err   error
}

// putParts sends first and the rest of r in parts as long as first. An upload that fails is left as it is, so that the
// next attempt goes on with it; gc ends those that nobody comes back to.
func (b *backend) putParts(ctx context.Context, key string, first []byte, r io.Reader, cond artifact.Condition) (string, error) {
	u, err := b.resume(ctx, key)
	if err == nil && u == nil {
		u, err = b.begin(ctx, key)
	}
	if err != nil {
		return "", err
	}
	if err := u.send(ctx, first, r); err != nil {
		return "", u.ended(ctx, err, cond)
	}
	etag, err := u.complete(ctx, cond)
	if err != nil {
		return "", u.ended(ctx, err, cond)
	}
	return etag, nil
}

func (b *backend) begin(ctx context.Context, key string) (*upload, error) {
	out, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.bucket, Key: b.key(key), ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
	})
	if err != nil {
		return nil, b.translate("put", key, err, artifact.Condition{})
	}
	return &upload{b: b, key: key, id: aws.ToString(out.UploadId)}, nil
}

// resume finds the newest unfinished upload of the key and what it has; nil when there is none.
func (b *backend) resume(ctx context.Context, key string) (*upload, error) {
	var newest *types.MultipartUpload
	for m, err := range b.uploads(ctx, key) {
		if err != nil {
			// Some services do not list uploads. That costs sending again, nothing else.
			if ctx.Err() != nil {
				return nil, err
			}
			return nil, nil
		}
		known := m.ChecksumAlgorithm == "" || m.ChecksumAlgorithm == types.ChecksumAlgorithmSha256
		if aws.ToString(m.Key) == b.prefix+key && known && (newest == nil || aws.ToTime(m.Initiated).After(aws.ToTime(newest.Initiated))) {
			newest = &m
		}
	}
	if newest == nil {
		return nil, nil
	}
	u := &upload{b: b, key: key, id: aws.ToString(newest.UploadId), stored: map[int32]types.Part{}}
	pages := s3.NewListPartsPaginator(b.client, &s3.ListPartsInput{Bucket: &b.bucket, Key: b.key(key), UploadId: &u.id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if code(err) == "NoSuchUpload" {
			return nil, nil // another writer has just ended it
		}
		if err != nil {
			return nil, b.translate("put", key, err, artifact.Condition{})
		}
		for _, p := range page.Parts {
			u.stored[aws.ToInt32(p.PartNumber)] = p
		}
	}
	return u, nil
}

// send reads parts one after another and sends those that the upload does not have yet, several at a time.
func (u *upload) send(ctx context.Context, first []byte, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sending sync.WaitGroup
	free := make(chan []byte, buffers) // buffers not in use; made when first needed
	free <- first
	made, size := 1, len(first)
	next := func() []byte {
		if made < buffers && len(free) == 0 {
			made++
			return make([]byte, size)
		}
		return (<-free)[:size]
	}
	data, more := <-free, true
	for number := int32(1); ; number++ {
		if number > maxParts {
			u.fail(fmt.Errorf("put %s: more than %d parts of %d bytes; give the size of what is put", u.key, maxParts, size))
			break
		}
		sent := data // data goes on to the next part while this one is sent
		sending.Go(func() {
			if err := u.part(ctx, number, sent); err != nil {
				u.fail(err)
				cancel()
			}
			free <- sent
		})
		if !more || u.failure() != nil {
			break
		}
		data = next()
		n, err := io.ReadFull(r, data)
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			u.fail(&sourceError{fmt.Errorf("put %s: %w", u.key, err)})
			cancel()
			break
		}
		data, more = data[:n], err == nil
	}
	sending.Wait()
	return u.failure()
}

// sourceError says that what is being put could not be read, or is not what it was announced to be.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// fail keeps the first error: those that follow are its consequences.
func (u *upload) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
	}
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// part sends one part unless the upload has it.
func (u *upload) part(ctx context.Context, number int32, data []byte) error {
	sum := sha256.Sum256(data)
	checksum := base64.StdEncoding.EncodeToString(sum[:])
	done := types.CompletedPart{PartNumber: &number, ChecksumSHA256: &checksum}
	if have, ok := u.stored[number]; ok && sameBytes(have, checksum, data) {
		done.ETag = have.ETag
	} else {
		out, err := u.b.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &u.b.bucket, Key: u.b.key(u.key), UploadId: &u.id, PartNumber: &number,
			Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))), ChecksumSHA256: &checksum,
		})
		if err != nil {
			return u.b.translate("put", u.key, err, artifact.Condition{})
		}
		done.ETag = out.ETag
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.parts) < int(number) {
		u.parts = append(u.parts, types.CompletedPart{})
	}
	u.parts[number-1] = done
	return nil
}

func sameBytes(have types.Part, checksum string, data []byte) bool {
	if aws.ToInt64(have.Size) != int64(len(data)) {
		return false
	}
	if have.ChecksumSHA256 != nil {
		return *have.ChecksumSHA256 == checksum
	}
	// Without SHA-256 in the listing, the entity tag is the MD5 on services that do not encrypt with their own keys.
	// A false match cannot get through: the completion names each part's SHA-256.
	sum := md5.Sum(data)
	return strings.Trim(aws.ToString(have.ETag), `"`) == hex.EncodeToString(sum[:])
}

func (u *upload) complete(ctx context.Context, cond artifact.Condition) (string, error) {
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &u.b.bucket, Key: u.b.key(u.key), UploadId: &u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	}
	in.IfNoneMatch, in.IfMatch = headers(cond)
	for attempt := 1; ; attempt++ {
		out, err := u.b.client.CompleteMultipartUpload(ctx, in)
		if err == nil {
			return tag(out.ETag), nil
		}
		if status(err) != http.StatusConflict || attempt == conflicts {
			return "", u.b.translate("put", u.key, err, cond)
		}
		if !pause(ctx, attempt) {
			return "", ctx.Err()
		}
	}
}

// pause waits for another writer's completion, longer with each attempt; false: ctx has ended.
func pause(ctx context.Context, attempt int) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(attempt) * 100 * time.Millisecond):
		return true
	}
}

// ended decides what a failed upload means and whether it is worth keeping.
func (u *upload) ended(ctx context.Context, err error, cond artifact.Condition) error {
	var source *sourceError
	switch {
	case ctx.Err() != nil: // cut off; the next attempt goes on here
	case errors.Is(err, artifact.ErrExists), errors.As(err, &source):
		// Nobody needs its parts any more, or they are not to be trusted. Left behind, gc ends it.
		abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = u.b.Discard(abort, artifact.Leftover{Key: u.key, ID: u.id})
	case code(err) == "NoSuchUpload" || status(err) >= http.StatusInternalServerError:
		// Another writer that was putting the same bytes has completed it, or this one has and did not hear the answer. A service whose
		// files are taken away by that under its hands may call it an error of its own, and one that is not yet done with the
		// completion may hide the upload before it shows the object.
		for attempt := 1; cond.IfNoneMatch && attempt <= conflicts; attempt++ {
			_, missing := u.b.Head(ctx, u.key)
			if missing == nil {
				return fmt.Errorf("put %s: %w", u.key, artifact.ErrExists)
			}
			if !errors.Is(missing, artifact.ErrNotFound) || !pause(ctx, attempt) {
				break
			}
		}
		if code(err) != "NoSuchUpload" {
			return err
		}
		return fmt.Errorf("put %s: the upload was ended by somebody else (%w): try again", u.key, artifact.ErrUnavailable)
	}
	return err
}

// uploads yields the unfinished uploads of keys that begin with prefix.
func (b *backend) uploads(ctx context.Context, prefix string) iter.Seq2[types.MultipartUpload, error] {
	return func(yield func(types.MultipartUpload, error) bool) {
		pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{Bucket: &b.bucket, Prefix: b.key(prefix)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(types.MultipartUpload{}, b.translate("list uploads", prefix, err, artifact.Condition{}))
				return
			}
			for _, m := range page.Uploads {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// Leftovers yields unfinished multipart uploads.
func (b *backend) Leftovers(ctx context.Context, before time.Time) iter.Seq2[artifact.Leftover, error] {
	return func(yield func(artifact.Leftover, error) bool) {
		for m, err := range b.uploads(ctx, "") {
			if err != nil {
				yield(artifact.Leftover{}, err)
				return
			}
			begun := aws.ToTime(m.Initiated).UTC()
			if !begun.Before(before) {
				continue
			}
			l := artifact.Leftover{Key: strings.TrimPrefix(aws.ToString(m.Key), b.prefix), ID: aws.ToString(m.UploadId), Size: -1, Modified: begun}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// Discard ends an unfinished multipart upload.
func (b *backend) Discard(ctx context.Context, l artifact.Leftover) error {
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.bucket, Key: b.key(l.Key), UploadId: &l.ID})
	if code(err) == "NoSuchUpload" {
		return nil
	}
	if err = b.translate("end upload of", l.Key, err, artifact.Condition{}); errors.Is(err, artifact.ErrNotFound) {
		return nil
	}
	return err
}
