package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// healthPath answers without credentials; a bucket of that name would be hidden.
const healthPath = "/healthz"

type gatewayConfig struct {
	port        int
	bucket      string
	credentials keyPair
}

// gateway is a running S3 gateway.
type gateway struct {
	gatewayConfig
	cancel context.CancelFunc
	failed chan error    // receives once if it ends on its own
	ended  chan struct{} // closed when it has ended
}

// startGateway serves data's s3 directory; ready waits until it answers. There can be one a process, and it changes the
// working directory.
func startGateway(ctx context.Context, data *dataDir, c gatewayConfig, log *slog.Logger) (*gateway, error) {
	layout, err := openLayout(data, c.bucket, meta.XattrMeta{}.Test)
	if err != nil {
		return nil, err
	}
	if data.crashed {
		repaired, err := layout.repair()
		if err != nil {
			return nil, fmt.Errorf("repair %s after a crash: %w", layout.root, err)
		}
		log.Info("objects checked after a crash", "repaired", repaired)
	}
	var storer meta.MetadataStorer = meta.XattrMeta{}
	if layout.sidecar != "" {
		if storer, err = meta.NewSideCar(layout.sidecar); err != nil {
			return nil, fmt.Errorf("open %s: %w", layout.sidecar, err)
		}
	}
	backend, err := posix.New(layout.root, storer, posix.PosixOpts{SideCarDir: layout.sidecar})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", layout.root, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	g := &gateway{gatewayConfig: c, cancel: cancel, failed: make(chan error, 1), ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		err := embedgw.RunVersityGW(ctx, &durable{Posix: backend, layout: layout}, &embedgw.Config{
			RootUserAccess: c.credentials.AccessKeyID, RootUserSecret: c.credentials.SecretAccessKey,
			Region: region, Ports: []string{loopback(c.port)}, HealthPath: healthPath,
			MaxConnections: 10_000, MaxRequests: 5_000, MultipartMaxParts: 10_000,
			Quiet: true, KeepAlive: true,
		})
		if ctx.Err() == nil {
			g.failed <- fmt.Errorf("serve on %s: %w", loopback(c.port), err)
		}
	}()
	return g, nil
}

// ready waits until the gateway answers, and creates the bucket.
func (g *gateway) ready(ctx context.Context) error {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + loopback(g.port)), UsePathStyle: true, Region: region,
		Credentials: credentials.NewStaticCredentialsProvider(g.credentials.AccessKeyID, g.credentials.SecretAccessKey, ""),
	})
	err := poll(ctx, func(ctx context.Context) error {
		select {
		case <-g.ended:
			return errors.New("it ended")
		default:
		}
		_, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &g.bucket})
		var missing *types.NotFound
		if !errors.As(err, &missing) {
			return err
		}
		_, err = client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &g.bucket})
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for S3 at %s: %w", loopback(g.port), err)
	}
	return nil
}

// stop ends the gateway after the requests in flight, or after ten seconds.
func (g *gateway) stop() {
	g.cancel()
	<-g.ended
}

// layout is where the objects are. Checksums, ETags and the like are extended attributes of the object files, set
// before a file gets its name, so that both appear at once. Where the filesystem has no extended attributes they are
// files in a directory of their own, the sidecar.
type layout struct {
	root    string
	sidecar string // empty: extended attributes
}

// openLayout decides at the first start, by trying, whether the filesystem has extended attributes, and keeps to it.
func openLayout(data *dataDir, bucket string, tryAttributes func(dir string) error) (layout, error) {
	l := layout{root: data.path("s3")}
	if err := os.MkdirAll(l.root, 0o700); err != nil {
		return layout{}, fmt.Errorf("create the object directory: %w", err)
	}
	sidecar := data.path("metadata")
	if _, err := os.Stat(sidecar); err == nil {
		l.sidecar = sidecar
		return l, nil
	}
	if tryAttributes(l.root) == nil {
		return l, nil
	}
	if _, err := os.Stat(l.bucketDir(bucket)); !errors.Is(err, fs.ErrNotExist) {
		return layout{}, fmt.Errorf("the objects in %s keep their checksums in extended attributes, which this filesystem lacks: "+
			"copy the directory, with its attributes (cp -a, rsync -X), to a filesystem that has them", l.root)
	}
	if err := os.Mkdir(sidecar, 0o700); err != nil {
		return layout{}, fmt.Errorf("create the object metadata directory: %w", err)
	}
	l.sidecar = sidecar
	return l, nil
}
