package datasets

// ScoresParams are the parameters of the scores stage.
type ScoresParams struct {
	// Buckets are upper bounds of answer lengths in targets by which losses are shown; default 8, 32, 128.
	// The last bucket is open.
	Buckets []int `json:"buckets,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p ScoresParams) Defaults() ScoresParams {
	if len(p.Buckets) == 0 {
		p.Buckets = []int{8, 32, 128}
	}
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p ScoresParams) Validate() error {
	for i, b := range p.Buckets {
		if b < 1 || i > 0 && b <= p.Buckets[i-1] {
			return paramError("buckets", "%v must be positive and increasing", p.Buckets)
		}
	}
	return nil
}
