// Package testenv runs the embedded servers (Temporal, its Web UI and an S3 gateway, together one program: devstack) as
// a child process, for tests and for the command line's embedded default.
//
//	Start      a devstack of one's own, on a directory of one's own: the embedded default
//	Shared     for tests: the one devstack that `make test` runs for all packages, or one that lingers between runs
//	Private    for tests that stop, kill or restart their servers
//	Unique     a name that keeps a test apart from all others on a shared devstack
//	Build      compiles devstack, a Go module of its own, so that the main module depends on no server; Cached
//	           does so once for all checkouts of a user, Find looks for one that is built
//
// An Endpoint says where the servers are. Its Env is what a process needs to use them, and is nothing but the standard
// variables of the Temporal and AWS SDKs: a real Temporal and a real object store are put in their place by setting
// these and running no devstack.
package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Endpoint says where a devstack's servers are. It holds no secrets.
type Endpoint struct {
	Temporal    string `json:"temporal"`     // host:port of the gRPC frontend
	Namespace   string `json:"namespace"`    // Temporal namespace
	UI          string `json:"ui,omitempty"` // URL of the Temporal Web UI; empty when it runs without
	S3          string `json:"s3"`           // URL of the S3 gateway
	Bucket      string `json:"bucket"`       // exists and is writable
	Region      string `json:"region"`       // AWS region the gateway signs for
	Credentials string `json:"credentials"`  // path of the file with the gateway's key pair
	Data        string `json:"data"`         // directory with all its data
	PID         int    `json:"pid"`          // its process
}

// KeyPair is the access key of an S3 gateway.
type KeyPair struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
}

// ReadEndpoint reads an endpoint as devstack prints it, or the file devstack keeps it in (endpoint.json).
func ReadEndpoint(jsonOrPath string) (Endpoint, error) {
	text, from := []byte(jsonOrPath), "endpoint"
	if !strings.HasPrefix(strings.TrimSpace(jsonOrPath), "{") {
		var err error
		if text, err = os.ReadFile(jsonOrPath); err != nil {
			return Endpoint{}, fmt.Errorf("read endpoint: %w", err)
		}
		from = jsonOrPath
	}
	var e Endpoint
	if err := json.Unmarshal(text, &e); err != nil {
		return Endpoint{}, fmt.Errorf("%s: %w", from, err)
	}
	if e.Temporal == "" || e.S3 == "" || e.Bucket == "" || e.Credentials == "" {
		return Endpoint{}, fmt.Errorf("%s: no endpoint of a devstack: want temporal, s3, bucket and credentials", from)
	}
	return e, nil
}

// KeyPair reads the gateway's access key.
func (e Endpoint) KeyPair() (KeyPair, error) {
	b, err := os.ReadFile(e.Credentials)
	if err != nil {
		return KeyPair{}, fmt.Errorf("read the S3 credentials: %w", err)
	}
	var pair KeyPair
	if err := json.Unmarshal(b, &pair); err != nil {
		return KeyPair{}, fmt.Errorf("%s: %w", e.Credentials, err)
	}
	if pair.AccessKeyID == "" || pair.SecretAccessKey == "" {
		return KeyPair{}, fmt.Errorf("%s: %w", e.Credentials, errors.New("no key pair inside"))
	}
	return pair, nil
}

// StoreURI is the address of an artifact store in the bucket, below a prefix.
func (e Endpoint) StoreURI(prefix string) string {
	return "s3://" + strings.TrimSuffix(e.Bucket+"/"+strings.Trim(prefix, "/"), "/")
}

// Env returns the environment variables by which the Temporal and AWS SDKs find these servers, to be appended to a
// process's environment.
func (e Endpoint) Env() ([]string, error) {
	pair, err := e.KeyPair()
	if err != nil {
		return nil, err
	}
	return []string{
		"TEMPORAL_ADDRESS=" + e.Temporal,
		"TEMPORAL_NAMESPACE=" + e.Namespace,
		"AWS_ENDPOINT_URL_S3=" + e.S3,
		"AWS_REGION=" + e.Region,
		"AWS_ACCESS_KEY_ID=" + pair.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + pair.SecretAccessKey,
		"AWS_SESSION_TOKEN=", // one left over from a real account would be sent along with our key
	}, nil
}
