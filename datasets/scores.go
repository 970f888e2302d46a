package datasets

// ScoresParams are the parameters of the scores stage.
type ScoresParams struct {
	// Buckets are the answer lengths, in targets, at which the second and later length ranges begin; default
	// 8, 32, 128: answers of 1–7, 8–31, 32–127 and 128 or more are shown apart.
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
