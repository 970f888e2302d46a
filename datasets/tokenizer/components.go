package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// component is a normalizer, pre-tokenizer, post-processor or decoder as written; the
// fields of all kinds together.
type component struct {
	Type           string            `json:"type"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	Processors     []json.RawMessage `json:"processors"`
	Decoders       []json.RawMessage `json:"decoders"`
	Prepend        string            `json:"prepend"`
	Pattern        *pattern          `json:"pattern"`
	Content        string            `json:"content"`
	StripLeft      bool              `json:"strip_left"`
	StripRight     bool              `json:"strip_right"`
	AddPrefixSpace *bool             `json:"add_prefix_space"`
	UseRegex       *bool             `json:"use_regex"`
	Behavior       behavior          `json:"behavior"`
	Invert         bool              `json:"invert"`
	Individual     bool              `json:"individual_digits"`
	Replacement    string            `json:"replacement"`
	PrependScheme  string            `json:"prepend_scheme"`
	Split          *bool             `json:"split"`
	Single         []templatePiece   `json:"single"`
	SpecialTokens  map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
	Start int             `json:"start"`
	Stop  int             `json:"stop"`
	Sep   json.RawMessage `json:"sep"`
	Cls   json.RawMessage `json:"cls"`
}

type pattern struct {
	String *string
	Regex  *string
}

type templatePiece struct {
	SpecialToken *struct {
		ID string `json:"id"`
	}
	Sequence *struct {
		ID string `json:"id"`
	}
}

func parseComponent(raw json.RawMessage, path string) (*component, error) {
	c := new(component)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, &FormatError{jsonFile, path, err}
	}
	return c, nil
}

func (c *component) refuse(path string) error {
	return &UnsupportedError{jsonFile, path, fmt.Sprintf("type %q", c.Type)}
}

// compile returns the pattern as a plain string or as a compiled regex.
func (p *pattern) compile(path string) (plain string, re *regex, err error) {
	switch {
	case p != nil && p.String != nil && *p.String != "":
		return *p.String, nil, nil
	case p != nil && p.Regex != nil:
		if re, err = compileRegex(*p.Regex); err != nil {
			what, said := strings.CutSuffix(err.Error(), " is not supported")
			if !said {
				what += ", which"
			}
			return "", nil, &UnsupportedError{jsonFile, path + ".pattern", what}
		}
		return "", re, nil
	}
	return "", nil, &FormatError{jsonFile, path + ".pattern", errors.New("missing or empty")}
}

func parseNormalizer(raw json.RawMessage, path string) (normalizer, error) {
	if absent(raw) {
		return nil, nil
	}
	c, err := parseComponent(raw, path)
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "Sequence":
		var seq normSequence
		for i, sub := range c.Normalizers {
			n, err := parseNormalizer(sub, fmt.Sprintf("%s.normalizers[%d]", path, i))
			if err != nil {
				return nil, err
			}
			if n != nil {
				seq = append(seq, n)
			}
		}
		if len(seq) == 0 {
			return nil, nil
		}
		return seq, nil
	case "NFC":
		return normForm{norm.NFC}, nil
	case "NFD":
		return normForm{norm.NFD}, nil
	case "NFKC":
		return normForm{norm.NFKC}, nil
	case "NFKD":
		return normForm{norm.NFKD}, nil
	case "Lowercase":
		return normLowercase{}, nil
	case "StripAccents":
		return normStripAccents{}, nil
	case "Strip":
		return normStrip{c.StripLeft, c.StripRight}, nil
	case "Prepend":
		return normPrepend(c.Prepend), nil
	case "Replace":
		plain, re, err := c.Pattern.compile(path)
		if err != nil {
			return nil, err
		}
		return normReplace{plain, re, c.Content}, nil
	}
	return nil, c.refuse(path)
}

func parsePreTokenizer(raw json.RawMessage, path string, steps []preTokenizer) ([]preTokenizer, error) {
	if absent(raw) {
		return steps, nil
	}
	c, err := parseComponent(raw, path)
	if err != nil {
		return nil, err
	}
	yes := func(b *bool) bool { return b == nil || *b }
	switch c.Type {
	case "Sequence":
		for i, sub := range c.PreTokenizers {
			if steps, err = parsePreTokenizer(sub, fmt.Sprintf("%s.pretokenizers[%d]", path, i), steps); err != nil {
				return nil, err
			}
		}
		return steps, nil
	case "ByteLevel":
		return append(steps, preByteLevel{addPrefixSpace: yes(c.AddPrefixSpace), pattern: yes(c.UseRegex)}), nil
	case "Metaspace":
		p, err := c.metaspace(path)
		return append(steps, p), err
	case "Digits":
		b := behaviorContiguous
		if c.Individual {
			b = behaviorIsolated
		}
		return append(steps, preSplit{find: findClass(classNumber, false), behavior: b}), nil
	case "WhitespaceSplit":
		return append(steps, preSplit{find: findClass(classSpace, false), behavior: behaviorRemoved}), nil
	case "Whitespace":
		return append(steps, preSplit{find: findWords, behavior: behaviorRemoved, invert: true}), nil
	case "Split":
		return c.splitter(path, steps)
	}
	return nil, c.refuse(path)
}

func (c *component) splitter(path string, steps []preTokenizer) ([]preTokenizer, error) {
	switch c.Behavior {
	case behaviorIsolated, behaviorRemoved, behaviorMergedWithPrevious, behaviorMergedWithNext, behaviorContiguous:
	default:
		return nil, &UnsupportedError{jsonFile, path + ".behavior", fmt.Sprintf("%q", c.Behavior)}
	}
	if c.Pattern != nil && c.Pattern.Regex != nil {
		// The scanners' pieces cover the text, so these two behaviors come to the same.
		covers := c.Behavior == behaviorIsolated && !c.Invert || c.Behavior == behaviorRemoved && c.Invert
		if scan, ok := knownPatterns[*c.Pattern.Regex]; ok && covers {
			return append(steps, preScan{scan}), nil
		}
	}
	plain, re, err := c.Pattern.compile(path)
	if err != nil {
		return nil, err
	}
	find := findString(plain)
	if re != nil {
		find = re.find
	}
	return append(steps, preSplit{find: find, behavior: c.Behavior, invert: c.Invert}), nil
}

// metaspace reads the settings of the pre-tokenizer or decoder of that name, in today's
// spelling (prepend_scheme, split) or the older one (add_prefix_space).
func (c *component) metaspace(path string) (preMetaspace, error) {
	p := preMetaspace{replacement: c.Replacement, scheme: c.PrependScheme, splits: c.Split == nil || *c.Split}
	if p.scheme == "" {
		p.scheme = "always"
	}
	if c.AddPrefixSpace != nil && !*c.AddPrefixSpace && c.PrependScheme == "" {
		p.scheme = "never"
	}
	if utf8.RuneCountInString(p.replacement) != 1 {
		return p, &FormatError{jsonFile, path + ".replacement", fmt.Errorf("%q is not one character", p.replacement)}
	}
	switch p.scheme {
	case "always", "first", "never":
		return p, nil
	}
	return p, &UnsupportedError{jsonFile, path + ".prepend_scheme", fmt.Sprintf("%q", p.scheme)}
}

func (t *Tokenizer) parsePostProcessor(raw json.RawMessage, path string) error {
	if absent(raw) {
		return nil
	}
	c, err := parseComponent(raw, path)
	if err != nil {
		return err
	}
	switch c.Type {
	case "ByteLevel": // touches offsets only
		return nil
	case "Sequence":
		for i, sub := range c.Processors {
			if err := t.parsePostProcessor(sub, fmt.Sprintf("%s.processors[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case "TemplateProcessing":
		return t.parseTemplate(c, path)
	}
	return c.refuse(path)
}

// parseTemplate reads what TemplateProcessing puts around a single sequence.
func (t *Tokenizer) parseTemplate(c *component, path string) error {
	if t.prefix != nil || t.suffix != nil {
		return &UnsupportedError{jsonFile, path, "a second TemplateProcessing"}
	}
	var prefix, suffix []int32
	seen := false
	for i, piece := range c.Single {
		at := fmt.Sprintf("%s.single[%d]", path, i)
		switch {
		case piece.Sequence != nil && piece.Sequence.ID == "A" && !seen:
			seen = true
		case piece.SpecialToken != nil:
			special, ok := c.SpecialTokens[piece.SpecialToken.ID]
			if !ok {
				return &FormatError{jsonFile, at, fmt.Errorf("%q is not among special_tokens", piece.SpecialToken.ID)}
			}
			for _, id := range special.IDs {
				if id < 0 || int(id) >= len(t.tokens) {
					return &FormatError{jsonFile, at, fmt.Errorf("%q has ID %d, outside the vocabulary", piece.SpecialToken.ID, id)}
				}
			}
			if seen {
				suffix = append(suffix, special.IDs...)
			} else {
				prefix = append(prefix, special.IDs...)
			}
		default:
			return &UnsupportedError{jsonFile, at, "a piece other than one sequence A and special tokens"}
		}
	}
	if !seen {
		return &UnsupportedError{jsonFile, path + ".single", "a template without sequence A"}
	}
	t.prefix, t.suffix = prefix, suffix
	return nil
}

func parseDecoder(raw json.RawMessage, path string, steps []decoder) ([]decoder, error) {
	if absent(raw) {
		return steps, nil
	}
	c, err := parseComponent(raw, path)
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "Sequence":
		for i, sub := range c.Decoders {
			if steps, err = parseDecoder(sub, fmt.Sprintf("%s.decoders[%d]", path, i), steps); err != nil {
				return nil, err
			}
		}
		return steps, nil
	case "ByteLevel":
		return append(steps, decByteLevel{}), nil
	case "ByteFallback":
		return append(steps, decByteFallback{}), nil
	case "Fuse":
		return append(steps, decFuse{}), nil
	case "Replace":
		plain, re, err := c.Pattern.compile(path)
		if err != nil {
			return nil, err
		}
		return append(steps, decReplace{plain, re, c.Content}), nil
	case "Strip":
		r, w := utf8.DecodeRuneInString(c.Content)
		if w == 0 || w != len(c.Content) || c.Start < 0 || c.Stop < 0 {
			return nil, &FormatError{jsonFile, path, fmt.Errorf("strips %q, which is not one character", c.Content)}
		}
		return append(steps, decStrip{r, c.Start, c.Stop}), nil
	case "Metaspace":
		p, err := c.metaspace(path)
		return append(steps, decMetaspace{p.replacement, p.scheme != "never"}), err
	}
	return nil, c.refuse(path)
}
