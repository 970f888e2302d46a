package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3response"
)

// durable is the gateway's POSIX backend with the promise S3 makes: what was acknowledged survives a power cut. The
// backend itself never calls fsync. Data is synced before the object gets its name, so that no name ever stands for
// data that is not there; attributes, name and every directory above it before the request is answered.
type durable struct {
	*posix.Posix
	layout layout
}

func (d *durable) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	out, err := d.PutObjectWithPostFunc(ctx, in, (*os.File).Sync)
	if err != nil {
		return out, err
	}
	return out, d.layout.sync(*in.Bucket, *in.Key)
}

func (d *durable) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	out, err := d.Posix.CopyObject(ctx, in)
	if err != nil {
		return out, err
	}
	return out, d.layout.sync(*in.Bucket, *in.Key)
}

func (d *durable) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	out, err := d.Posix.DeleteObject(ctx, in)
	if err != nil {
		return out, err
	}
	return out, d.layout.sync(*in.Bucket, *in.Key)
}

func (d *durable) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	if err := d.Posix.CreateBucket(ctx, in, acl); err != nil {
		return err
	}
	return d.layout.sync(*in.Bucket, "")
}

func (d *durable) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	out, err := d.Posix.CreateMultipartUpload(ctx, in)
	if err != nil {
		return out, err
	}
	return out, d.layout.sync(*in.Bucket, uploadDir(*in.Key, out.UploadId))
}

func (d *durable) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	out, err := d.UploadPartWithPostFunc(ctx, in, (*os.File).Sync)
	if err != nil {
		return out, err
	}
	part := filepath.Join(uploadDir(*in.Key, *in.UploadId), strconv.Itoa(int(*in.PartNumber)))
	return out, d.layout.sync(*in.Bucket, part)
}

func (d *durable) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	out, version, err := d.CompleteMultipartUploadWithCopy(ctx, in, appendSynced)
	if err != nil {
		return out, version, err
	}
	return out, version, d.layout.sync(*in.Bucket, *in.Key)
}

// appendSynced appends a part to the object being assembled and syncs it. It leaves the part alone, so a completion
// that fails later can be tried again (the returned true). After a failure the backend appends the part once more by
// itself, so what a failed try wrote is taken back.
func appendSynced(part, object *os.File) (bool, error) {
	start, err := object.Seek(0, io.SeekEnd)
	if err != nil {
		return true, fmt.Errorf("find the end of the assembled object: %w", err)
	}
	if _, err = io.Copy(object, part); err == nil {
		err = object.Sync()
	}
	if err != nil {
		_, rewind := part.Seek(0, io.SeekStart)
		return true, errors.Join(fmt.Errorf("append part: %w", err), object.Truncate(start), rewind)
	}
	return true, nil
}

// uploadDir is where the backend keeps an unfinished multipart upload, below the bucket.
func uploadDir(key, uploadID string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(posix.MetaTmpMultipartDir, hex.EncodeToString(sum[:]), uploadID)
}

func (l layout) bucketDir(bucket string) string { return filepath.Join(l.root, bucket) }

// sync makes a path below a bucket durable: the file with its attributes, the sidecar's attributes if there is one,
// and all directories up to the root, whether or not the file is still there.
func (l layout) sync(bucket, path string) error {
	if l.sidecar != "" {
		attributes := filepath.Join(l.sidecar, bucket, path, "meta")
		entries, err := os.ReadDir(attributes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sync attributes: %w", err)
		}
		for _, e := range entries {
			if err := syncPath(filepath.Join(attributes, e.Name())); err != nil {
				return err
			}
		}
		if err := syncUpTo(l.sidecar, attributes); err != nil {
			return err
		}
	}
	return syncUpTo(l.root, filepath.Join(l.root, bucket, path))
}

// syncUpTo syncs path and its parents up to and including root.
func syncUpTo(root, path string) error {
	for ; len(path) > len(root); path = filepath.Dir(path) {
		if err := syncPath(path); err != nil {
			return err
		}
	}
	return syncPath(root)
}

// syncPath syncs one file or directory. One that is gone was deleted meanwhile; its parent's sync records that.
func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
