package tokenizer

import "errors"

// ParseSentencePiece reads a SentencePiece .model file of type BPE and, if not nil,
// tokenizer_config.json.
func ParseSentencePiece(model, configJSON []byte) (*Tokenizer, error) {
	return nil, errors.New("not yet")
}
