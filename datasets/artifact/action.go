package artifact

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Action is the complete description of what a stage's result means. Whatever changes the result is in it; budgets,
// concurrency, endpoints' addresses, checkpoint intervals and paths are not, so that they can change without
// computing again. A field added later must be omitted when it has its zero value, or every key would change.
type Action struct {
	Stage        string `json:"stage"`
	StageVersion int    `json:"stage_version"` // bumped by hand when the stage's code gives other bytes
	// Params are the stage's parameters with defaults filled in: the zero value and the default written out must not
	// be two keys.
	Params any               `json:"params"`
	Seeds  map[string]uint64 `json:"seeds,omitempty"`
	// Inputs are the digests of what goes in, by role: Manifest.Digest or Blob.Digest.
	Inputs    map[string]string `json:"inputs,omitempty"`
	Precision string            `json:"precision,omitempty"`
	// DeviceClass is set where results differ by it: an instruction set or a GPU architecture.
	DeviceClass string `json:"device_class,omitempty"`
}

// Key returns the action's key, 64 hex digits, and the canonical JSON it is the sha256 of.
func (a Action) Key() (key string, canonical []byte, err error) {
	if err := checkName("stage", a.Stage); err != nil {
		return "", nil, fmt.Errorf("action key: %w", err)
	}
	for role, digest := range a.Inputs {
		if digest == "" {
			return "", nil, fmt.Errorf("action key: stage %s: input %s has no digest", a.Stage, role)
		}
	}
	if a.Params == nil {
		a.Params = struct{}{}
	}
	canonical, err = CanonicalJSON(a)
	if err != nil {
		return "", nil, fmt.Errorf("action key: stage %s: %w", a.Stage, err)
	}
	return keyOf(canonical), canonical, nil
}

func keyOf(canonical []byte) string { return strings.TrimPrefix(digestOf(canonical), "sha256:") }

// checkName accepts names that are one segment of a key.
func checkName(what, name string) error {
	if err := CheckKey(name); err != nil || strings.Contains(name, "/") {
		return fmt.Errorf("%s %.100q: %w", what, name, ErrKey)
	}
	return nil
}

// NewManifest begins the manifest of an action: everything that is known before its outputs are, and what this
// process knows about itself.
func NewManifest(a Action) (*Manifest, error) {
	key, canonical, err := a.Key()
	if err != nil {
		return nil, err
	}
	var parts struct {
		Params json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(canonical, &parts); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", a.Stage, err)
	}
	return &Manifest{
		Version:        ManifestVersion,
		Stage:          a.Stage,
		StageVersion:   a.StageVersion,
		Key:            key,
		Generation:     1,
		Params:         parts.Params,
		ActionKeyInput: canonical,
		Code:           CurrentCode(),
		Platform:       CurrentPlatform(),
	}, nil
}
