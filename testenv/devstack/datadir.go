package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// maxLogBytes is the size at which the log of earlier runs is set aside as devstack.log.old.
const maxLogBytes = 16 << 20

// endpoint says where the servers are: the readiness line, and the content of endpoint.json. It holds no secrets.
type endpoint struct {
	Ready       bool   `json:"ready"`
	Temporal    string `json:"temporal"` // host:port of the gRPC frontend
	Namespace   string `json:"namespace"`
	UI          string `json:"ui,omitempty"` // URL; empty with --headless
	S3          string `json:"s3"`           // URL
	Bucket      string `json:"bucket"`
	Region      string `json:"region"`
	Credentials string `json:"credentials"` // path of credentials.json
	Data        string `json:"data"`
	PID         int    `json:"pid"`
}

// keyPair is the content of credentials.json.
type keyPair struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
}

// dataDir is the locked directory of one devstack.
type dataDir struct {
	root    string
	lock    *flock.Flock
	log     *os.File
	crashed bool // the last devstack here did not stop cleanly
}

// openDataDir creates the directory if needed, locks it and opens its log.
func openDataDir(root string) (*dataDir, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	d := &dataDir{root: root, lock: flock.New(filepath.Join(root, "lock"), flock.SetPermissions(0o600))}
	locked, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", root, err)
	}
	if !locked {
		return nil, d.inUse()
	}
	if err := os.WriteFile(d.path("lock"), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("note the process in the lock: %w", err)
	}
	_, err = os.Stat(d.path("endpoint.json"))
	d.crashed = err == nil
	if err := os.Remove(d.path("endpoint.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the endpoint of a devstack that is gone: %w", err)
	}
	if fi, err := os.Stat(d.path("devstack.log")); err == nil && fi.Size() > maxLogBytes {
		if err := os.Rename(d.path("devstack.log"), d.path("devstack.log.old")); err != nil {
			return nil, fmt.Errorf("set the old log aside: %w", err)
		}
	}
	d.log, err = os.OpenFile(d.path("devstack.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return d, nil
}

// inUse is the error of a second devstack on a directory. It says who holds it and where that one answers.
func (d *dataDir) inUse() error {
	who := "another devstack"
	if b, err := os.ReadFile(d.path("lock")); err == nil && len(b) > 0 {
		who += ", process " + strings.TrimSpace(string(b))
	}
	var e endpoint
	if b, err := os.ReadFile(d.path("endpoint.json")); err == nil && json.Unmarshal(b, &e) == nil {
		who += ", Temporal at " + e.Temporal
	}
	return fmt.Errorf("%s is in use by %s: use that one, stop it, or choose another --dir", d.root, who)
}

func (d *dataDir) path(name string) string { return filepath.Join(d.root, name) }

func (d *dataDir) close() {
	d.log.Close()
	d.lock.Unlock()
}

// credentials reads the key pair of this directory, or generates one. A file that others can read is narrowed.
func (d *dataDir) credentials() (keyPair, error) {
	name := d.path("credentials.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		pair := keyPair{AccessKeyID: "longalign-" + strings.ToLower(rand.Text()[:10]), SecretAccessKey: rand.Text() + rand.Text()}
		return pair, writeJSON(name, pair)
	}
	if err != nil {
		return keyPair{}, fmt.Errorf("read credentials: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		return keyPair{}, fmt.Errorf("protect credentials: %w", err)
	}
	var pair keyPair
	if err := json.Unmarshal(b, &pair); err != nil || pair.AccessKeyID == "" || pair.SecretAccessKey == "" {
		return keyPair{}, fmt.Errorf("%s holds no key pair (%v): remove it to have a new one generated", name, err)
	}
	return pair, nil
}

// lastPorts returns the ports of the run before, zero where none is known.
func (d *dataDir) lastPorts() ports {
	var p ports
	if b, err := os.ReadFile(d.path("ports.json")); err == nil && json.Unmarshal(b, &p) != nil {
		return ports{} // only a preference: a damaged file costs a client a look at endpoint.json
	}
	return p
}

func endpointFor(o options, d *dataDir, p ports) endpoint {
	e := endpoint{
		Ready: true, Temporal: loopback(p.Temporal), Namespace: o.namespace,
		S3: "http://" + loopback(p.S3), Bucket: o.bucket, Region: region,
		Credentials: d.path("credentials.json"), Data: d.root, PID: os.Getpid(),
	}
	if !o.headless {
		e.UI = "http://" + loopback(p.UI)
	}
	return e
}

// announce writes ports.json and endpoint.json, then the readiness line.
func (d *dataDir) announce(e endpoint, p ports, stdout io.Writer) error {
	if err := writeJSON(d.path("ports.json"), p); err != nil {
		return err
	}
	if err := writeJSON(d.path("endpoint.json"), e); err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = stdout.Write(append(line, '\n'))
	if err != nil {
		return fmt.Errorf("write the readiness line: %w", err)
	}
	return nil
}

// withdraw takes endpoint.json away: what it names is about to stop.
func (d *dataDir) withdraw() error {
	if err := os.Remove(d.path("endpoint.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove endpoint.json: %w", err)
	}
	return nil
}

// writeJSON replaces a file as a whole, readable by its owner only.
func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // created with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
