package datasets

import (
	"encoding/json"
	"fmt"
)

// Recompute says what training computes again in the backward pass instead of keeping it: auto, none, selective or layer. Files
// may say true, which is layer, and false, which leaves it to the memory plan. No bit of a result depends on it.
type Recompute string

// UnmarshalJSON reads a name or a truth value.
func (r *Recompute) UnmarshalJSON(data []byte) error {
	switch s := string(data); s {
	case "true", `"true"`:
		*r = "layer"
	case "false", `"false"`, "null":
		*r = ""
	default:
		var name string
		if err := json.Unmarshal(data, &name); err != nil {
			return fmt.Errorf("recompute: wanted auto, none, selective or layer, got %s", data)
		}
		*r = Recompute(name)
	}
	return nil
}
