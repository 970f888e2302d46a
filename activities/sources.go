package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/documents"
	"github.com/longalign/longalign-go/datasets/fetch"
)

// openSource opens a source on this machine, or below s3://bucket/prefix. $FETCHED is where starter fetch puts files.
func openSource(ctx context.Context, s datasets.DocumentSource) (documents.Source, error) {
	if !strings.Contains(s.Path, "://") {
		where, err := fetch.Expand(s.Path)
		if err != nil {
			return documents.Source{}, badData("documents: source %s: %w", s.Path, err)
		}
		s.Path = where
		src, err := documents.Local(s)
		if err != nil {
			return src, badData("%w", err)
		}
		return src, nil
	}
	// A URI whose last part is an object is that file alone.
	if at := strings.LastIndex(s.Path, "/"); at > strings.Index(s.Path, "://")+2 && at+1 < len(s.Path) {
		store, err := artifact.Open(ctx, s.Path[:at])
		if err != nil {
			return documents.Source{}, sourceError(s, err)
		}
		name := s.Path[at+1:]
		_, err = store.Backend().Head(ctx, name)
		switch {
		case err == nil:
			s.Include = []string{literally(name)}
			return documents.Source{DocumentSource: s, FS: artifact.Files(ctx, store.Backend(), name)}, nil
		case !errors.Is(err, artifact.ErrNotFound) && !errors.Is(err, artifact.ErrKey):
			return documents.Source{}, sourceError(s, err)
		}
	}
	store, err := artifact.Open(ctx, strings.TrimSuffix(s.Path, "/"))
	if err != nil {
		return documents.Source{}, sourceError(s, err)
	}
	files := artifact.Files(ctx, store.Backend(), "")
	// A mistyped prefix has no objects: that is no empty corpus.
	switch entries, err := fs.ReadDir(files, "."); {
	case err != nil:
		return documents.Source{}, sourceError(s, err)
	case len(entries) == 0:
		return documents.Source{}, badData("documents: source %s: there are no objects; check the bucket and the prefix", s.Path)
	}
	return documents.Source{DocumentSource: s, FS: files}, nil
}

func sourceError(s datasets.DocumentSource, err error) error {
	if errors.Is(err, artifact.ErrUnavailable) {
		return &problem{StoreUnavailable, fmt.Errorf("documents: source %s: %w", s.Path, err)}
	}
	return badData("documents: source %s: %w; check the address and the AWS environment", s.Path, err)
}

// literally is a pattern that matches only name.
func literally(name string) string {
	return strings.NewReplacer("\\", "\\\\", "*", "\\*", "?", "\\?", "[", "\\[").Replace(name)
}

func openSources(ctx context.Context, list []datasets.DocumentSource) ([]documents.Source, error) {
	sources := make([]documents.Source, len(list))
	for i, s := range list {
		var err error
		if sources[i], err = openSource(ctx, s); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// inputError types what reading input failed with: an outage is retried, as is what else the file system failed with; everything else is
// about the input.
func inputError(err error) error {
	switch {
	case errors.Is(err, artifact.ErrUnavailable):
		return &problem{StoreUnavailable, err}
	case errors.As(err, new(*documents.ReadError)):
		return err
	}
	return badData("%w", err)
}
