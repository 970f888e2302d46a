package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/longalign/longalign-go/reports"
)

// ratingsBytes reads the file of Table 1's input, and its digest.
func ratingsBytes(ctx context.Context, p *reports.RatingsParams) (data []byte, digest string, err error) {
	where, err := openPlace(ctx, p.Path)
	if err != nil {
		return nil, "", badData("tables.ratings: %w", err)
	}
	if where.name == "" {
		return nil, "", badData("tables.ratings: %s is a directory; name a CSV file", p.Path)
	}
	if data, err = fs.ReadFile(where.files, where.name); err != nil {
		return nil, "", badData("tables.ratings: %s: %w", p.Path, err)
	}
	return data, fmt.Sprintf("sha256:%x", sha256.Sum256(data)), nil
}

// ratingsFile hashes Table 1's input, which is not an artifact.
func ratingsFile(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[TablesParams](raw)
	if err != nil || p.Ratings == nil {
		return nil, err
	}
	_, digest, err := ratingsBytes(ctx, p.Ratings)
	return map[string]string{"ratings": digest}, err
}

// ratingsOutput is the copy of Table 1's input that the tables keep, so that they follow from the store alone.
const ratingsOutput = "ratings.csv"

// keepRatings stores Table 1's input with the tables.
func (j *job) keepRatings(ctx context.Context, p *reports.RatingsParams) error {
	if p == nil {
		return nil
	}
	data, _, err := ratingsBytes(ctx, p)
	if err != nil {
		return err
	}
	return j.put(ctx, ratingsOutput, "text/csv", bytes.NewReader(data))
}

// readRatings reads Table 1's input, from the tables' own copy where there is one; nil when there is none.
func (j *job) readRatings(ctx context.Context, p *reports.RatingsParams) (*reports.Ratings, error) {
	if p == nil {
		return nil, nil
	}
	var data []byte
	var digest string
	var err error
	if kept, ok := j.manifest.Output(ratingsOutput); ok {
		digest = kept.Blob.Digest
		data, err = j.a.Store.ReadBlob(ctx, kept.Blob)
	} else {
		data, digest, err = ratingsBytes(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	r, err := reports.ReadRatings(bytes.NewReader(data), p.Raters(), p.Length)
	if err != nil {
		return nil, badData("tables.ratings: %s: %w", p.Path, err)
	}
	r.Sources = []string{digest}
	return r, nil
}
