package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ManifestVersion is the newest manifest format this program writes and reads.
const ManifestVersion = 1

// Ref names a manifest. It is what a workflow's history holds.
type Ref struct {
	Stage      string `json:"stage"`
	Key        string `json:"key"`
	Generation int    `json:"generation"`
}

// String is short enough for logs: tokens/3f2a91c07d1b/1.
func (r Ref) String() string {
	return fmt.Sprintf("%s/%.12s/%d", r.Stage, r.Key, r.Generation)
}

func (r Ref) path() (string, error) {
	if err := checkName("stage", r.Stage); err != nil {
		return "", err
	}
	if _, err := (Blob{Digest: "sha256:" + r.Key}).Key(); err != nil {
		return "", fmt.Errorf("key %.100q of stage %s: %w: want 64 hex digits", r.Key, r.Stage, ErrKey)
	}
	if r.Generation < 1 {
		return "", fmt.Errorf("manifest %s: %w: generations begin at 1", r, ErrKey)
	}
	return manifestPrefix(r.Stage, r.Key) + strconv.Itoa(r.Generation) + ".json", nil
}

func manifestPrefix(stage, key string) string { return "actions/" + stage + "/" + key + "/" }

// Manifest says what a stage's result is and what it was made from. It is written once, after its blobs.
type Manifest struct {
	Version      int             `json:"version"` // ManifestVersion
	Stage        string          `json:"stage"`
	StageVersion int             `json:"stage_version"`
	Key          string          `json:"key"`        // the action's key
	Generation   int             `json:"generation"` // 1; higher where a corrupt result was made again
	Params       json.RawMessage `json:"params"`     // with defaults filled in
	Inputs       map[string]Ref  `json:"inputs,omitempty"`
	Outputs      []Output        `json:"outputs"`
	// Counts are what a person wants to know of the result: documents, tokens, failed samples.
	Counts map[string]int64 `json:"counts,omitempty"`
	// Notes are said wherever the result is shown, such as "offline teacher: not a language model".
	Notes    []string `json:"notes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Flags mark the result for machines: tiny, synthetic, simulated.
	Flags    []string        `json:"flags,omitempty"`
	Ledger   json.RawMessage `json:"ledger,omitempty"` // the token ledger
	Code     Code            `json:"code"`
	Platform Platform        `json:"platform"`
	Workflow Workflow        `json:"workflow"`
	Started  time.Time       `json:"started"`
	Finished time.Time       `json:"finished"`
	// ActionKeyInput is the canonical description whose sha256 is Key; explain compares it with another one's.
	ActionKeyInput json.RawMessage `json:"action"`
}

// Output is one of a stage's results.
type Output struct {
	Name      string `json:"name"`
	MediaType string `json:"media_type,omitempty"`
	Blob      Blob   `json:"blob"`
	// Volatile outputs, such as timings, differ each time they are made. They are not part of the manifest's digest.
	Volatile bool `json:"volatile,omitempty"`
}

// Code says which code made a result.
type Code struct {
	Revision string `json:"revision,omitempty"`
	Dirty    bool   `json:"dirty,omitempty"` // built from a tree with changes that are in no revision
	Version  string `json:"version,omitempty"`
}

// Platform says where a result was made.
type Platform struct {
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	CPU    string `json:"cpu,omitempty"`
	GPU    string `json:"gpu,omitempty"`
	Driver string `json:"driver,omitempty"`
	Go     string `json:"go"`
}

// Workflow says which execution made a result; both are empty outside Temporal.
type Workflow struct {
	ID    string `json:"id,omitempty"`
	RunID string `json:"run_id,omitempty"`
}

// Ref returns the manifest's name.
func (m *Manifest) Ref() Ref { return Ref{Stage: m.Stage, Key: m.Key, Generation: m.Generation} }

// Output returns the output of that name.
func (m *Manifest) Output(name string) (Output, bool) {
	i := slices.IndexFunc(m.Outputs, func(o Output) bool { return o.Name == name })
	if i < 0 {
		return Output{}, false
	}
	return m.Outputs[i], true
}

// Digest is the hash of what the result is: the names and digests of its outputs, without the volatile ones. It is
// what the key of a stage that uses the result contains, so equal results made differently lead to one key.
func (m *Manifest) Digest() string {
	outputs := map[string]string{}
	for _, o := range m.Outputs {
		if !o.Volatile {
			outputs[o.Name] = o.Blob.Digest
		}
	}
	canonical, err := CanonicalJSON(outputs)
	if err != nil { // only by names that are not Unicode, which check refuses
		return ""
	}
	return digestOf(canonical)
}

// NextGeneration returns a manifest for the same action with the next generation and no outputs, to be filled when a
// corrupt result is made again.
func (m *Manifest) NextGeneration() *Manifest {
	next := *m
	next.Version = ManifestVersion
	next.Generation++
	next.Outputs = nil
	next.Code, next.Platform = CurrentCode(), CurrentPlatform()
	next.Started, next.Finished = time.Time{}, time.Time{}
	return &next
}

// Check refuses what must never be stored under the manifest's name: a description with another key, outputs without valid names.
func (m *Manifest) Check() error {
	if _, err := m.Ref().path(); err != nil {
		return err
	}
	if len(m.ActionKeyInput) == 0 {
		return fmt.Errorf("manifest %s: the action's canonical description is missing; begin with NewManifest", m.Ref())
	}
	canonical, err := CanonicalJSON(m.ActionKeyInput)
	if err != nil {
		return fmt.Errorf("manifest %s: action: %w", m.Ref(), err)
	}
	if keyOf(canonical) != m.Key {
		return fmt.Errorf("manifest %s: the action's description has key %s", m.Ref(), keyOf(canonical))
	}
	seen := map[string]bool{}
	for _, o := range m.Outputs {
		if o.Name == "" || seen[o.Name] {
			return fmt.Errorf("manifest %s: output %q: names must be there and differ", m.Ref(), o.Name)
		}
		seen[o.Name] = true
		if _, err := o.Blob.Key(); err != nil {
			return fmt.Errorf("manifest %s: output %s: %w", m.Ref(), o.Name, err)
		}
	}
	for role, in := range m.Inputs {
		if _, err := in.path(); err != nil {
			return fmt.Errorf("manifest %s: input %s: %w", m.Ref(), role, err)
		}
	}
	return nil
}

// PutManifest stores a manifest whose blobs are stored. The first one for an action and generation wins: when another
// was there before, PutManifest returns the action's newest, which the caller adopts in place of its own.
func (s *Store) PutManifest(ctx context.Context, m *Manifest) (winner *Manifest, err error) {
	mine := *m
	if mine.Version == 0 {
		mine.Version = ManifestVersion
	}
	if mine.Generation == 0 {
		mine.Generation = 1
	}
	if err := mine.Check(); err != nil {
		return nil, err
	}
	key, err := mine.Ref().path()
	if err != nil {
		return nil, err
	}
	data, err := seal(&mine)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", mine.Ref(), err)
	}
	_, err = s.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), Condition{IfNoneMatch: true})
	if errors.Is(err, ErrExists) {
		return s.FindManifest(ctx, mine.Stage, mine.Key)
	}
	if err != nil {
		return nil, err
	}
	return &mine, nil
}

// Manifest returns the manifest of that name.
func (s *Store) Manifest(ctx context.Context, ref Ref) (*Manifest, error) {
	key, err := ref.path()
	if err != nil {
		return nil, err
	}
	data, _, err := s.read(ctx, key, maxDocument)
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := s.unseal(key, data, &m); err != nil {
		return nil, err
	}
	if m.Version > ManifestVersion {
		return nil, &NewerError{Object: key, Version: m.Version, Known: ManifestVersion}
	}
	if m.Ref() != ref {
		return nil, &CorruptError{Store: s.uri, Object: key, Want: ref.String(), Got: m.Ref().String()}
	}
	if err := m.Check(); err != nil {
		return nil, &CorruptError{Store: s.uri, Object: key, Want: "a consistent manifest", Got: err.Error()}
	}
	return &m, nil
}

// FindManifest returns the newest generation of an action's manifest; ErrNotFound when the action has no result.
func (s *Store) FindManifest(ctx context.Context, stage, key string) (*Manifest, error) {
	if _, err := (Ref{stage, key, 1}).path(); err != nil {
		return nil, err
	}
	newest, err := s.Generations(ctx, stage, key)
	if err != nil {
		return nil, err
	}
	if newest == 0 {
		return nil, fmt.Errorf("manifest %s/%s: %w", stage, key, ErrNotFound)
	}
	return s.Manifest(ctx, Ref{stage, key, newest})
}

// Generations returns the highest generation of an action's manifests, readable or not; 0 when there is none.
func (s *Store) Generations(ctx context.Context, stage, key string) (int, error) {
	newest := 0
	for info, err := range s.backend.List(ctx, manifestPrefix(stage, key)) {
		if err != nil {
			return 0, err
		}
		if ref, ok := parseManifestKey(info.Key); ok {
			newest = max(newest, ref.Generation)
		}
	}
	return newest, nil
}

// Current returns the newest generation of the result that ref names: a result that was found corrupt and made again is
// read from its repaired copy. A generation that holds something else than ref does is not the same result and is left.
func (s *Store) Current(ctx context.Context, ref Ref) (*Manifest, error) {
	m, err := s.Manifest(ctx, ref)
	newest, found := s.FindManifest(ctx, ref.Stage, ref.Key)
	switch {
	case found != nil || newest.Generation <= ref.Generation:
		return m, err
	case err == nil && newest.Digest() != m.Digest():
		return m, nil
	}
	return newest, nil
}

// Manifests yields every manifest of a stage, of all stages when stage is empty, in order of stage, key and
// generation as text. One that cannot be read is an error beside its Ref, and the iteration goes on.
func (s *Store) Manifests(ctx context.Context, stage string) iter.Seq2[Ref, ManifestResult] {
	return func(yield func(Ref, ManifestResult) bool) {
		prefix := "actions/"
		if stage != "" {
			if err := checkName("stage", stage); err != nil {
				yield(Ref{}, ManifestResult{Err: err})
				return
			}
			prefix += stage + "/"
		}
		for info, err := range s.backend.List(ctx, prefix) {
			if err != nil {
				yield(Ref{}, ManifestResult{Err: err})
				return
			}
			ref, ok := parseManifestKey(info.Key)
			if !ok {
				continue
			}
			m, err := s.Manifest(ctx, ref)
			if !yield(ref, ManifestResult{Manifest: m, Err: err, Modified: info.Modified}) {
				return
			}
		}
	}
}

// ManifestResult is what Manifests found under a Ref: a manifest or why it cannot be read.
type ManifestResult struct {
	Manifest *Manifest
	Err      error
	Modified time.Time // when it was stored, by the store's clock
}

func parseManifestKey(key string) (Ref, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 || parts[0] != "actions" {
		return Ref{}, false
	}
	number, ok := strings.CutSuffix(parts[3], ".json")
	if !ok {
		return Ref{}, false
	}
	n, err := strconv.Atoi(number)
	ref := Ref{Stage: parts[1], Key: parts[2], Generation: n}
	if p, perr := ref.path(); err != nil || perr != nil || p != key {
		return Ref{}, false
	}
	return ref, true
}
