// Package s3 keeps artifacts in an S3 bucket. Importing it makes artifact.Open understand s3://bucket/prefix; it is
// the only package that imports the AWS SDK.
//
// Configuration is the standard AWS environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE and the
// files in ~/.aws, AWS_REGION, and AWS_ENDPOINT_URL_S3 for services other than AWS, which are addressed path-style.
//
// The service must honour If-None-Match on PutObject and CompleteMultipartUpload and If-Match on PutObject (AWS,
// MinIO, versitygw, Ceph since Squid do); artifact.Store.Probe finds out. Objects longer than artifact.PartSize are
// sent in parts, at most a few of which are in memory; an upload that was cut off is found again by its key and goes
// on with the parts whose hashes match.
package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func init() {
	artifact.Register("s3", func(ctx context.Context, uri *url.URL) (artifact.Backend, error) {
		if uri.Host == "" || uri.RawQuery != "" || uri.Fragment != "" {
			return nil, errors.New("a bucket is written s3://bucket/prefix; endpoint and credentials come from the AWS environment")
		}
		return Open(ctx, uri.Host, strings.Trim(uri.Path, "/"))
	})
}

// A request is tried for a few seconds. Longer outages are for the caller to wait out, who can say so.
const attempts = 6

// delay waits 100 ms before the first repetition and up to twice as long before each next one, shortened at random so
// that clients which failed together do not come back together.
func delay(attempt int, _ error) (time.Duration, error) {
	limit := 100 * time.Millisecond << min(attempt, 5)
	return limit/2 + rand.N(limit/2), nil
}

// credentialsWait bounds the search for credentials, which asks the network where nothing is configured.
const credentialsWait = 20 * time.Second

type backend struct {
	client *s3.Client
	bucket string
	prefix string // "" or ends with a slash
}

// Open returns a backend for the objects below prefix (empty: all) in a bucket that exists. It finds credentials and
// does not yet talk to the service.
func Open(ctx context.Context, bucket, prefix string) (artifact.Backend, error) {
	if prefix != "" {
		if err := artifact.CheckKey(prefix); err != nil {
			return nil, err
		}
		prefix += "/"
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, credentialsWait)
	defer cancel()
	if _, err := cfg.Credentials.Retrieve(wait); err != nil {
		return nil, fmt.Errorf("%w: no usable AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE: %w",
			artifact.ErrDenied, err)
	}
	noRegion := false
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if o.BaseEndpoint != nil {
			// Services other than AWS rarely have a host name for each bucket, and seldom care about the region.
			o.UsePathStyle = true
			if o.Region == "" {
				o.Region = "us-east-1"
			}
		}
		noRegion = o.Region == ""
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		o.DisableLogOutputChecksumValidationSkipped = true // objects in parts have none; they are hashed by artifact
		// 409 says that another conditional write of the key is under way: this one is decided when that one is.
		standard := retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.Backoff = attempts, retry.BackoffDelayerFunc(delay)
		})
		o.Retryer = retry.AddWithErrorCodes(standard, "ConditionalRequestConflict", "OperationAborted")
	})
	if noRegion {
		return nil, errors.New("no AWS region: set AWS_REGION, or AWS_ENDPOINT_URL_S3 for another service")
	}
	return &backend{client: client, bucket: bucket, prefix: prefix}, nil
}

func (b *backend) key(key string) *string { return aws.String(b.prefix + key) }
