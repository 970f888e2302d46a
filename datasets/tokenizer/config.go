package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// applyConfig reads tokenizer_config.json: the names of special tokens, further added
// tokens and the chat template. What it says about adding BOS and EOS is left
// to the post-processor, as in Hugging Face tokenizers.
func (t *Tokenizer) applyConfig(raw []byte) error {
	if raw == nil {
		return nil
	}
	var config map[string]json.RawMessage
	if err := json.Unmarshal(raw, &config); err != nil {
		return &FormatError{configFile, "document", err}
	}
	for key, value := range config {
		if !strings.HasSuffix(key, "_token") || key == "add_bos_token" || key == "add_eos_token" {
			continue
		}
		text, err := tokenText(value)
		if err != nil {
			return &FormatError{configFile, key, err}
		}
		if text == "" {
			continue
		}
		t.named[key] = text
		if id, ok := t.ids[text]; ok {
			t.control[id] = true
		}
	}
	if err := t.addConfigTokens(config["added_tokens_decoder"]); err != nil {
		return err
	}
	if err := t.markExtra(config["additional_special_tokens"]); err != nil {
		return err
	}
	for name, id := range map[string]*int32{"bos_token": &t.bos, "eos_token": &t.eos} {
		if known, ok := t.ids[t.named[name]]; ok {
			*id = known
			t.control[known] = true
		}
	}
	return t.readTemplate(config["chat_template"])
}

// tokenText reads a token written as a string, as an object or as null.
func tokenText(raw json.RawMessage) (string, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" || string(raw) == "false" || string(raw) == "true" {
		return "", nil
	}
	var text string
	if raw[0] == '"' {
		err := json.Unmarshal(raw, &text)
		return text, err
	}
	var obj addedToken
	err := json.Unmarshal(raw, &obj)
	return obj.Content, err
}

// addConfigTokens adds tokens that only the configuration lists, in order of ID, and
// takes over its special flags.
func (t *Tokenizer) addConfigTokens(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var byID map[string]addedToken
	if err := json.Unmarshal(raw, &byID); err != nil {
		return &FormatError{configFile, "added_tokens_decoder", err}
	}
	var list []addedToken
	for key, a := range byID {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			return &FormatError{configFile, "added_tokens_decoder", fmt.Errorf("%q is not a token ID", key)}
		}
		a.ID = int32(id)
		if known, ok := t.ids[a.Content]; ok {
			if a.Special {
				t.control[known] = true
			}
			if known != a.ID || !t.sentencePiece || t.special[known] {
				continue
			}
		}
		list = append(list, a)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	if !t.sentencePiece {
		return nil // tokenizer.json is complete by itself
	}
	return t.addTokens(list)
}

func (t *Tokenizer) markExtra(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return &FormatError{configFile, "additional_special_tokens", err}
	}
	for _, item := range list {
		text, err := tokenText(item)
		if err != nil {
			return &FormatError{configFile, "additional_special_tokens", err}
		}
		if id, ok := t.ids[text]; ok {
			t.control[id] = true
		}
	}
	return nil
}

// readTemplate reads a template, or of several named ones the default.
func (t *Tokenizer) readTemplate(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	if json.Unmarshal(raw, &t.template) == nil {
		return nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return &FormatError{configFile, "chat_template", errors.New("is neither a string nor a list of named templates")}
	}
	for _, item := range list {
		if item.Name == "default" {
			t.template = item.Template
		}
	}
	return nil
}
