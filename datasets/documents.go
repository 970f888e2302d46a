package datasets

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

// Split is the part of the data a document belongs to.
type Split string

// The splits. Nothing made from a held-out document is ever trained on.
const (
	SplitTrain   Split = "train"
	SplitHeldOut Split = "held-out"
)

// Document is one text that instructions are made from.
type Document struct {
	// ID names the document within its corpus: path, and for parts of a file what follows "#".
	ID string `json:"id"`
	// Text is valid UTF-8 without NUL.
	Text string `json:"text"`
	// Title is a short name, where the source has one.
	Title string `json:"title,omitempty"`
	// Source is the name of the DocumentSource it came from.
	Source string `json:"source,omitempty"`
	// Lang is "en" or "zh".
	Lang string `json:"lang,omitempty"`
	// Group is what is split as one: a Go package, a file's directory. Documents of a
	// group are never on both sides of the split.
	Group string `json:"group,omitempty"`
	// Kind is the form of the text: see the formats of DocumentSource.
	Kind string `json:"kind,omitempty"`
	// Split is its side.
	Split Split `json:"split,omitempty"`
	// Tokens is its length by the stage's counter.
	Tokens int `json:"tokens,omitempty"`
	// Copy numbers repetitions of an up-sampled document, from 0.
	Copy int `json:"copy,omitempty"`
}

// DocumentFormat is how documents are read from a file.
type DocumentFormat string

// The formats. All may be compressed: .gz and .zst are seen by the name's ending.
const (
	// FormatAuto goes by the name's ending: .jsonl .ndjson .parquet .md .markdown .html .htm .go .txt; others are skipped.
	FormatAuto DocumentFormat = "auto"
	// FormatJSONL has an object a line.
	FormatJSONL DocumentFormat = "jsonl"
	// FormatParquet has a row a document.
	FormatParquet DocumentFormat = "parquet"
	// FormatText is one document a file.
	FormatText DocumentFormat = "text"
	// FormatMarkdown is text whose first heading is the title.
	FormatMarkdown DocumentFormat = "markdown"
	// FormatHTML is reduced to its visible text.
	FormatHTML DocumentFormat = "html"
	// FormatGo keeps a file's documented declarations with their source, grouped by package.
	// Tests, generated files, testdata and vendor directories are left out.
	FormatGo DocumentFormat = "go"
)

// DocumentSource is a set of files read alike.
type DocumentSource struct {
	// Name is the source's name in reports; default the last part of its Path.
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	// Path is a directory or file, or s3://bucket/prefix. It is where to look, not what
	// is there, and no part of what a result means.
	Path string `yaml:"path" json:"path" key:"-"`
	// Include are patterns of paths below Path, as of path.Match, ** for any directories; default all.
	Include []string `yaml:"include,omitempty" json:"include,omitempty"`
	// Exclude are patterns of paths left out.
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"`
	// Format is how files are read; default auto.
	Format DocumentFormat `yaml:"format,omitempty" json:"format,omitempty"`
	// TextField, IDField, TitleField, LangField and GroupField name the fields (JSONL) or columns
	// (Parquet); defaults text, id, title, lang, group. Only the text's must exist.
	TextField  string `yaml:"text_field,omitempty" json:"text_field,omitempty"`
	IDField    string `yaml:"id_field,omitempty" json:"id_field,omitempty"`
	TitleField string `yaml:"title_field,omitempty" json:"title_field,omitempty"`
	LangField  string `yaml:"lang_field,omitempty" json:"lang_field,omitempty"`
	GroupField string `yaml:"group_field,omitempty" json:"group_field,omitempty"`
	// PartBytes cuts text, Markdown, HTML and Go files into documents of at most that many bytes at
	// paragraphs and declarations. Parts are mostly short with a long tail: each one's size is drawn
	// from a density that falls as size^(-2/3), by its place in the file. 0 keeps files whole.
	PartBytes int `yaml:"part_bytes,omitempty" json:"part_bytes,omitempty"`
	// Lang is the language of documents that do not say theirs; default: zh when a
	// tenth of the letters are Han, else en.
	Lang string `yaml:"lang,omitempty" json:"lang,omitempty"`
}

// BadInput says what happens to input that cannot be read as a document.
type BadInput string

// The policies for bad input.
const (
	// BadInputFail stops with the file and line.
	BadInputFail BadInput = "fail"
	// BadInputSkip leaves it out and counts it.
	BadInputSkip BadInput = "skip"
)

// DocumentsParams are the parameters of the documents stage.
type DocumentsParams struct {
	// Sources are read in order.
	Sources []DocumentSource `yaml:"sources" json:"sources"`
	// MinTokens and MaxTokens bound a document's length; MaxTokens 0 is no bound. The paper has 8,192 and 65,536.
	MinTokens int `yaml:"min_tokens,omitempty" json:"min_tokens,omitempty"`
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// MaxBytes bounds what is read of one document into memory, which takes about four times as much; default 64 MiB. Longer ones are bad input.
	MaxBytes int64 `yaml:"max_bytes,omitempty" json:"max_bytes,omitempty"`
	// BadInput is what happens to input that cannot be read; default fail.
	BadInput BadInput `yaml:"bad_input,omitempty" json:"bad_input,omitempty"`
	// HeldOut is the share of groups held out: those whose sha256 of seed and name is below it.
	HeldOut float64 `yaml:"held_out,omitempty" json:"held_out,omitempty"`
	// NearDuplicates drops documents whose estimated Jaccard similarity of word
	// 5-grams with an earlier one is at least this; default 0.8, negative keeps them.
	NearDuplicates float64 `yaml:"near_duplicates,omitempty" json:"near_duplicates,omitempty"`
	// Decontaminate are the evaluation texts, one source a benchmark: a document that shares an n-gram with one
	// is dropped and counted under the source's name.
	Decontaminate []DocumentSource `yaml:"decontaminate,omitempty" json:"decontaminate,omitempty"`
	// DecontaminationNGram is the length of those n-grams in words; default 13, negative switches it off.
	DecontaminationNGram int `yaml:"decontamination_ngram,omitempty" json:"decontamination_ngram,omitempty"`
	// UpsampleAbove and UpsampleTimes repeat training documents of more than UpsampleAbove tokens
	// UpsampleTimes times in all; 0 repeats none.
	UpsampleAbove int `yaml:"upsample_above,omitempty" json:"upsample_above,omitempty"`
	UpsampleTimes int `yaml:"upsample_times,omitempty" json:"upsample_times,omitempty"`
	// MaxDocuments keeps that many training documents, and MaxHeldOut that many held-out ones, drawn by seed; 0 keeps all.
	MaxDocuments int `yaml:"max_documents,omitempty" json:"max_documents,omitempty"`
	MaxHeldOut   int `yaml:"max_held_out,omitempty" json:"max_held_out,omitempty"`
	// Seed determines the split and the draw.
	Seed uint64 `yaml:"seed" json:"seed"`
}

// Defaults returns p with unset fields filled in.
func (p DocumentsParams) Defaults() DocumentsParams {
	setDefault(&p.MaxBytes, 64<<20)
	setDefault(&p.BadInput, BadInputFail)
	setDefault(&p.NearDuplicates, 0.8)
	setDefault(&p.DecontaminationNGram, 13)
	if p.UpsampleAbove > 0 {
		setDefault(&p.UpsampleTimes, 2)
	}
	p.Sources, p.Decontaminate = sourceDefaults(p.Sources), sourceDefaults(p.Decontaminate)
	return p
}

func sourceDefaults(sources []DocumentSource) []DocumentSource {
	if len(sources) == 0 {
		return nil
	}
	filled := make([]DocumentSource, len(sources))
	for i, s := range sources {
		setDefault(&s.Name, path.Base(s.Path))
		setDefault(&s.Format, FormatAuto)
		setDefault(&s.TextField, "text")
		setDefault(&s.IDField, "id")
		setDefault(&s.TitleField, "title")
		setDefault(&s.LangField, "lang")
		setDefault(&s.GroupField, "group")
		filled[i] = s
	}
	return filled
}

// Validate says what is wrong with p, after Defaults.
func (p DocumentsParams) Validate() error {
	if len(p.Sources) == 0 {
		return paramError("sources", "there are none; name at least one directory or file of documents")
	}
	for i, s := range p.Sources {
		if err := s.validate(fmt.Sprintf("sources.%d.", i)); err != nil {
			return err
		}
	}
	for i, s := range p.Decontaminate {
		if err := s.validate(fmt.Sprintf("decontaminate.%d.", i)); err != nil {
			return err
		}
	}
	switch {
	case p.MinTokens < 0 || p.MaxTokens > 0 && p.MinTokens > p.MaxTokens:
		return paramError("min_tokens", "%d to %d tokens is no range", p.MinTokens, p.MaxTokens)
	case p.MaxTokens < 0:
		return paramError("max_tokens", "%d is negative; use 0 for no bound", p.MaxTokens)
	case p.MaxBytes < 1:
		return paramError("max_bytes", "%d must be at least 1", p.MaxBytes)
	case p.BadInput != BadInputFail && p.BadInput != BadInputSkip:
		return paramError("bad_input", "%q is not known; use fail or skip", p.BadInput)
	case !(p.HeldOut >= 0 && p.HeldOut < 1):
		return paramError("held_out", "%v is not a share; use a number from 0 to below 1", p.HeldOut)
	case p.NearDuplicates > 1:
		return paramError("near_duplicates", "%v is more than 1, the similarity of equal texts", p.NearDuplicates)
	case p.UpsampleTimes < 0:
		return paramError("upsample_times", "%d is negative", p.UpsampleTimes)
	case p.UpsampleAbove < 0:
		return paramError("upsample_above", "%d is negative", p.UpsampleAbove)
	case p.UpsampleTimes > 0 && p.UpsampleAbove == 0:
		return paramError("upsample_above", "set it with upsample_times")
	case p.MaxDocuments < 0:
		return paramError("max_documents", "%d is negative; use 0 for all", p.MaxDocuments)
	case p.MaxHeldOut < 0:
		return paramError("max_held_out", "%d is negative; use 0 for all", p.MaxHeldOut)
	}
	return nil
}

// validate says what is wrong with s; at is where its fields stand.
func (s DocumentSource) validate(at string) error {
	switch s.Format {
	case FormatAuto, FormatJSONL, FormatParquet, FormatText, FormatMarkdown, FormatHTML, FormatGo:
	default:
		return paramError(at+"format", "%q is not known; use auto, jsonl, parquet, text, markdown, html or go", s.Format)
	}
	if s.Lang != "" && s.Lang != "en" && s.Lang != "zh" {
		return paramError(at+"lang", "%q is not known; use en or zh", s.Lang)
	}
	if s.PartBytes < 0 || s.PartBytes > 0 && s.PartBytes < 64 {
		return paramError(at+"part_bytes", "%d is too small; use 0 for whole files, or at least 64", s.PartBytes)
	}
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"include", s.Include}, {"exclude", s.Exclude}} {
		for i, pattern := range list.patterns {
			if _, err := path.Match(strings.ReplaceAll(pattern, "**", "*"), ""); err != nil {
				return paramError(fmt.Sprintf("%s%s.%d", at, list.name, i), "%q is not a pattern: %v", pattern, err)
			}
		}
	}
	return nil
}

// DocumentsReport counts what a documents stage read, kept and dropped. Each document
// read is kept or has one reason.
type DocumentsReport struct {
	Files   int `json:"files"`
	Read    int `json:"read"`
	Kept    int `json:"kept"`
	HeldOut int `json:"held_out"`
	// Copies are the additional ones of up-sampled documents, not in Kept.
	Copies int   `json:"copies"`
	Tokens int64 `json:"tokens"`
	// Dropped counts by reason.
	Dropped map[string]int `json:"dropped,omitempty"`
	// Contaminated counts dropped documents by the benchmark they overlap with.
	Contaminated map[string]int `json:"contaminated,omitempty"`
	// BadInput are the first places that could not be read, as file:line: reason.
	BadInput []string `json:"bad_input,omitempty"`
}

// Digest is the sha256 of a document's text in hexadecimal.
func (d Document) Digest() string {
	sum := sha256.Sum256([]byte(d.Text))
	return hex.EncodeToString(sum[:])
}
