package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// tokenBlobs are the files of sequences of an input, in order.
func (j *job) tokenBlobs(ctx context.Context, role string) ([]artifact.Blob, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return nil, err
	}
	blobs := TokenBlobs(m)
	if len(blobs) == 0 {
		return nil, badData("input %s (%s %s) has no output %q", role, m.Stage, m.Key, tokensName(0, true))
	}
	return blobs, nil
}

// TokenBlobs are the files of sequences among the outputs of a tokens stage, in order; none if it has none.
func TokenBlobs(m *artifact.Manifest) []artifact.Blob {
	if out, ok := m.Output(tokensName(0, true)); ok {
		return []artifact.Blob{out.Blob}
	}
	var blobs []artifact.Blob
	for {
		out, ok := m.Output(tokensName(len(blobs), false))
		if !ok {
			return blobs
		}
		blobs = append(blobs, out.Blob)
	}
}

// sequences maps the token sequences of an input into memory, from copies on this machine.
func (j *job) sequences(ctx context.Context, role string) (set *tokens.Set, closeSet func(), err error) {
	blobs, err := j.tokenBlobs(ctx, role)
	if err != nil {
		return nil, nil, err
	}
	var unmaps []func() error
	unmapAll := func() {
		for _, unmap := range unmaps {
			_ = unmap()
		}
	}
	defer func() {
		if err != nil {
			unmapAll()
		}
	}()
	var shards []*tokens.Shard
	for k, blob := range blobs {
		path := filepath.Join(j.dir, fmt.Sprintf("%s-%d.bin", role, k))
		if err := j.a.Store.FetchBlob(ctx, blob, path); err != nil {
			return nil, nil, err
		}
		data, unmap, err := tokens.Map(path)
		if err != nil {
			return nil, nil, err
		}
		unmaps = append(unmaps, unmap)
		shard, err := tokens.Open(data)
		if err != nil {
			return nil, nil, badData("tokens of input %s: %w", role, err)
		}
		shards = append(shards, shard)
		j.advance(Progress{Done: int64(k + 1), Total: int64(len(blobs)), Unit: "file", Note: "fetching tokens"})
	}
	return tokens.NewSet(shards...), unmapAll, nil
}

// sequenceIndex opens the sequences of an input where they are: their lengths, targets and weights are read, their tokens only when
// asked for.
func (j *job) sequenceIndex(ctx context.Context, role string) (*tokens.Set, error) {
	blobs, err := j.tokenBlobs(ctx, role)
	if err != nil {
		return nil, err
	}
	var shards []*tokens.Shard
	for _, blob := range blobs {
		shard, err := tokens.OpenAt(&blobReader{ctx, j.a.Store, blob}, blob.Size)
		var format *tokens.FormatError
		if errors.As(err, &format) {
			return nil, badData("tokens of input %s: %w", role, err)
		}
		if err != nil {
			return nil, err
		}
		shards = append(shards, shard)
	}
	return tokens.NewSet(shards...), nil
}

// blobReader reads verified ranges of a blob.
type blobReader struct {
	ctx   context.Context
	store *artifact.Store
	blob  artifact.Blob
}

// ReadAt reads len(b) bytes from offset at.
func (r *blobReader) ReadAt(b []byte, at int64) (int, error) {
	in, err := r.store.OpenRange(r.ctx, r.blob, at, int64(len(b)))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(in, b)
	return n, errors.Join(err, in.Close())
}

// noteError keeps the error that ended the reading, apart from what a parser makes of it.
type noteError struct {
	io.Reader
	err error
}

// Read reads.
func (r *noteError) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
