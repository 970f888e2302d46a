package testenv

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Namespace makes a Temporal namespace for one test, with search attributes of type keyword, and returns a client of it and
// its name. Task queues have fixed names: in a namespace of its own, a test's workers see none but the test's tasks.
func Namespace(t TB, e Endpoint, attributes []string) (client.Client, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := Unique(t)
	options := client.Options{HostPort: e.Temporal, Namespace: name, Logger: quiet{}}
	admin, err := client.NewNamespaceClient(options)
	if err != nil {
		t.Fatalf("namespace: %v", err)
	}
	defer admin.Close()
	err = admin.Register(ctx, &workflowservice.RegisterNamespaceRequest{Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)})
	if err != nil {
		t.Fatalf("namespace %s: %v", name, err)
	}
	c, err := client.DialContext(ctx, options)
	if err != nil {
		t.Fatalf("namespace %s: %v", name, err)
	}
	t.Cleanup(c.Close)
	// The server's parts learn of a namespace one after the other.
	keywords := map[string]enumspb.IndexedValueType{}
	for _, a := range attributes {
		keywords[a] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	if err := until(ctx, func() error {
		_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: name, SearchAttributes: keywords})
		return err
	}); err != nil {
		t.Fatalf("search attributes of namespace %s: %v", name, err)
	}
	return c, name
}

// until tries again what fails, until the context ends.
func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// quiet drops a client's log.
type quiet struct{}

var _ log.Logger = quiet{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
