package datasets

// PredictionsParams are the parameters of the predictions stage.
type PredictionsParams struct {
	// MaxInstances are scored at most, the first ones by ID; 0 means all.
	MaxInstances int `json:"max_instances,omitempty"`
	// MaxNewTokens bounds a generated answer; default 64.
	MaxNewTokens int `json:"max_new_tokens,omitempty"`
	// Generate is how many instances are answered by greedy generation; the others are only scored by
	// their loss. 0 means none.
	Generate int `json:"generate,omitempty"`
	// Device is where predictions run: auto, host, cuda. Its class is in the action key.
	Device string `json:"device,omitempty" key:"-"`
}

// Defaults returns p with unset fields filled in.
func (p PredictionsParams) Defaults() PredictionsParams {
	setDefault(&p.MaxNewTokens, 64)
	setDefault(&p.Device, "auto")
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p PredictionsParams) Validate() error {
	switch {
	case p.MaxInstances < 0:
		return paramError("max_instances", "%d is negative", p.MaxInstances)
	case p.Generate < 0:
		return paramError("generate", "%d is negative", p.Generate)
	case p.MaxNewTokens < 1:
		return paramError("max_new_tokens", "%d must be at least 1", p.MaxNewTokens)
	}
	return nil
}

// Prediction is what a model made of one held-out instance.
type Prediction struct {
	ID   string   `json:"id"`
	Task TaskType `json:"task"`
	Kind string   `json:"kind,omitempty"`
	// PromptTokens and Targets are lengths: of the rendered prompt, and of the answer with its EOS.
	PromptTokens int `json:"prompt_tokens"`
	Targets      int `json:"targets"`
	// NLL is Σ_t ℓ_t over the targets, in nats.
	NLL float64 `json:"nll"`
	// AbsentNLL is the NLL of the same answer when the needle was taken out of the document.
	AbsentNLL *float64 `json:"absent_nll,omitempty"`
	Answer    string   `json:"answer"`
	// Generated is the greedy continuation, for instances that were answered.
	Generated *string `json:"generated,omitempty"`
	// Cut says that generation met MaxNewTokens before EOS.
	Cut bool `json:"cut,omitempty"`
	// Truncated says that the instance did not fit into the context and was cut in the middle.
	Truncated bool   `json:"truncated,omitempty"`
	Failed    string `json:"failed,omitempty"`
}

// PredictionsStageParams are what the predictions stage is called with: the user's parameters, and
// how the model was taught to read.
type PredictionsStageParams struct {
	PredictionsParams
	Template  string `json:"template"`
	MaxLength int    `json:"max_length"`
	// Answer is set to answer a benchmark's questions instead of held-out instructions. MaxLength is then the window, 0 the model's.
	Answer *AnswerParams `json:"answer,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p PredictionsStageParams) Defaults() PredictionsStageParams {
	p.PredictionsParams = p.PredictionsParams.Defaults()
	if p.Answer != nil {
		a := *p.Answer
		setDefault(&a.Every, 8)
		if a.Endpoint != nil {
			e := a.Endpoint.Defaults()
			a.Endpoint = &e
		}
		p.Answer = &a
	}
	return p
}
