package datasets

// TokenizerParams are the parameters of the tokenizer stage: a tokenizer is taken from
// a directory, or trained on the training documents.
type TokenizerParams struct {
	// Path is a Hugging Face directory with tokenizer.json or tokenizer.model. It is where to look, not
	// what is there: the files' digests are in the action key.
	Path string `json:"path,omitempty" key:"-"`
	// VocabSize is the size of a byte-level BPE trained on the documents when Path is empty; default 2,048.
	VocabSize int `json:"vocab_size,omitempty"`
	// MaxBytes bounds the text it is trained on, taken evenly over the documents; default 8 MiB.
	MaxBytes int64 `json:"max_bytes,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p TokenizerParams) Defaults() TokenizerParams {
	if p.Path != "" {
		return p
	}
	setDefault(&p.VocabSize, 2048)
	setDefault(&p.MaxBytes, 8<<20)
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p TokenizerParams) Validate() error {
	switch {
	case p.Path != "" && (p.VocabSize != 0 || p.MaxBytes != 0):
		return paramError("vocab_size", "a tokenizer is either read from path or trained; remove one of them")
	case p.Path == "" && (p.VocabSize < 300 || p.VocabSize > 1<<20):
		return paramError("vocab_size", "%d is not between 300 (256 bytes and the special tokens) and 1,048,576", p.VocabSize)
	case p.Path == "" && p.MaxBytes < 1<<10:
		return paramError("max_bytes", "%d is too little text to train on", p.MaxBytes)
	}
	return nil
}
