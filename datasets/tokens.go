package datasets

import (
	"fmt"
	"path"
	"slices"
)

// CutAnswers says what happens to a sequence that lost targets to truncation.
type CutAnswers string

// The policies for cut answers. A sequence without any target left is always dropped and counted.
const (
	// CutAnswersKeep trains on what is left, without EOS.
	CutAnswersKeep CutAnswers = "keep"
	// CutAnswersDrop leaves the sequence out.
	CutAnswersDrop CutAnswers = "drop"
	// CutAnswersError fails.
	CutAnswersError CutAnswers = "error"
)

// TokensParams are the parameters of the tokens stage.
type TokensParams struct {
	// Template is the chat template's name; default longalign.
	Template string `yaml:"template" json:"template"`
	// MaxLength is the most tokens a sequence keeps; default 65,536.
	MaxLength int `yaml:"max_length" json:"max_length"`
	// OverLength is what happens to longer ones; default truncate-right (the paper).
	OverLength OverLength `yaml:"over_length" json:"over_length"`
	// Instances trains on that many instructions, drawn by Seed: a smaller number is a subset of a larger one, as
	// LongAlign-0k, 5k and 10k are. 0 takes all.
	Instances int    `yaml:"instances,omitempty" json:"instances,omitempty"`
	Seed      uint64 `yaml:"seed,omitempty" json:"seed,omitempty"`
	// Mix adds conversations from files to the instructions; OnlyMix leaves the instructions out, as LongAlign-0k does.
	Mix     []MixSource `yaml:"mix,omitempty" json:"mix,omitempty"`
	OnlyMix bool        `yaml:"only_mix,omitempty" json:"only_mix,omitempty"`
	// MixTotal draws that many conversations in all by weights, the instructions' being Weight (default 1); 0 takes of each source as
	// many as its instances says.
	MixTotal int     `yaml:"mix_total,omitempty" json:"mix_total,omitempty"`
	Weight   float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// CutAnswers is what happens when that cuts off targets; default keep.
	CutAnswers CutAnswers `yaml:"cut_answers" json:"cut_answers"`
}

// MixSource is files of conversations: ShareGPT, messages, LLaMA-Factory, or document with question and answer (see package chat).
type MixSource struct {
	// Name is the source's name in reports; default the last part of its path.
	Name string `yaml:"name,omitempty" json:"name,omitempty" key:"-"`
	// Path is a file, a directory of .json and .jsonl files, plain or .gz or .zst, or s3://bucket/prefix; $FETCHED is where starter fetch
	// puts files. It is where to look, not what is there.
	Path string `yaml:"path" json:"path" key:"-"`
	// Instances takes that many, drawn by the tokens' seed; 0 takes all. Weight is the source's with MixTotal; default 1.
	Instances int     `yaml:"instances,omitempty" json:"instances,omitempty"`
	Weight    float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// BadInput is what happens to conversations that cannot be read; default fail.
	BadInput BadInput `yaml:"bad_input,omitempty" json:"bad_input,omitempty"`
	// MaxBytes is the longest conversation that is read, in the file's bytes; longer ones are bad input. Default 64 MiB, which may take 2.5 GB.
	MaxBytes int64 `yaml:"max_bytes,omitempty" json:"max_bytes,omitempty"`
}

// Limit returns MaxBytes or its default.
func (s MixSource) Limit() int64 {
	if s.MaxBytes > 0 {
		return s.MaxBytes
	}
	return 64 << 20
}

// Defaults returns p with unset fields filled in.
func (p TokensParams) Defaults() TokensParams {
	if len(p.Mix) > 0 {
		p.Mix = slices.Clone(p.Mix)
	}
	for i := range p.Mix {
		setDefault(&p.Mix[i].Name, path.Base(p.Mix[i].Path))
		setDefault(&p.Mix[i].BadInput, BadInputFail)
		if p.MixTotal > 0 {
			setDefault(&p.Mix[i].Weight, 1)
		}
	}
	if p.MixTotal > 0 && !p.OnlyMix {
		setDefault(&p.Weight, 1)
	}
	setDefault(&p.Template, "longalign")
	setDefault(&p.MaxLength, 65536)
	setDefault(&p.OverLength, TruncateRight)
	setDefault(&p.CutAnswers, CutAnswersKeep)
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p TokensParams) Validate() error {
	switch {
	case p.Template == "":
		return paramError("template", "name one, such as longalign, llama3 or chatml")
	case p.MaxLength < 2:
		return paramError("max_length", "%d leaves no token to predict; use at least 2", p.MaxLength)
	case p.Instances < 0:
		return paramError("instances", "%d is negative", p.Instances)
	case p.OnlyMix && len(p.Mix) == 0:
		return paramError("only_mix", "there is nothing in mix; name files of conversations there")
	case p.OnlyMix && p.Instances > 0:
		return paramError("instances", "only_mix leaves the instructions out; remove one of them")
	case p.MixTotal < 0:
		return paramError("mix_total", "%d is negative", p.MixTotal)
	case p.MixTotal > 0 && (len(p.Mix) == 0 || p.Instances > 0):
		return paramError("mix_total", "it draws from mix by weights, so mix must be there and instances must not")
	case !(p.Weight >= 0) || p.Weight > 0 && p.MixTotal == 0:
		return paramError("weight", "weights are not negative and need mix_total")
	case !p.OverLength.known():
		return paramError("over_length", "%q is not known; use truncate-right, truncate-middle, drop or error", p.OverLength)
	case p.checkMix() != nil:
		return p.checkMix()
	case p.CutAnswers != CutAnswersKeep && p.CutAnswers != CutAnswersDrop && p.CutAnswers != CutAnswersError:
		return paramError("cut_answers", "%q is not known; use keep, drop or error", p.CutAnswers)
	}
	return nil
}

func (p TokensParams) checkMix() error {
	seen := map[string]bool{"instructions": true}
	for i, s := range p.Mix {
		at := fmt.Sprintf("mix.%d.", i)
		switch {
		case seen[s.Name]:
			return paramError(at+"name", "there are two sources named %q; give them names", s.Name)
		case s.Instances < 0:
			return paramError(at+"instances", "%d is negative; use 0 for all", s.Instances)
		case s.MaxBytes < 0:
			return paramError(at+"max_bytes", "%d is negative; use 0 for the default", s.MaxBytes)
		case !(s.Weight >= 0):
			return paramError(at+"weight", "%v is negative", s.Weight)
		case s.Instances > 0 && p.MixTotal > 0:
			return paramError(at+"instances", "with mix_total each source has a weight; remove one of them")
		case s.Weight > 0 && p.MixTotal == 0:
			return paramError(at+"weight", "weights need mix_total, the number of conversations in all; set it, or use instances")
		case s.BadInput != BadInputFail && s.BadInput != BadInputSkip:
			return paramError(at+"bad_input", "%q is not known; use fail or skip", s.BadInput)
		}
		seen[s.Name] = true
	}
	return nil
}

// TokensReport counts what a tokens stage made.
type TokensReport struct {
	// Instances were read, Sequences written.
	Instances int `json:"instances"`
	Sequences int `json:"sequences"`
	// Truncated sequences were over-long, CutAnswers of them lost targets; both count dropped ones too.
	Truncated  int `json:"truncated"`
	CutAnswers int `json:"cut_answers"`
	// EmptyReplies were removed, each with the message it replied to.
	EmptyReplies int `json:"empty_replies"`
	// Dropped sequences by reason.
	Dropped map[string]int `json:"dropped,omitempty"`
	// Lengths and Answers are histograms of sequence lengths and targets: Lengths[b] counts those
	// with 2^(b-1) < n ≤ 2^b (Figure 3).
	Lengths []int  `json:"lengths"`
	Answers []int  `json:"answers"`
	Ledger  Ledger `json:"ledger"`
}

// Add adds o, the counts of another shard, to r.
func (r *TokensReport) Add(o TokensReport) {
	r.Instances += o.Instances
	r.Sequences += o.Sequences
	r.Truncated += o.Truncated
	r.CutAnswers += o.CutAnswers
	r.EmptyReplies += o.EmptyReplies
	addCounts(&r.Dropped, o.Dropped)
	r.Lengths = addHistogram(r.Lengths, o.Lengths)
	r.Answers = addHistogram(r.Answers, o.Answers)
	r.Ledger.Add(o.Ledger)
}

func addHistogram(a, b []int) []int {
	for len(a) < len(b) {
		a = append(a, 0)
	}
	for i, n := range b {
		a[i] += n
	}
	return a
}

// TokensStageParams are what the tokens stage is called with: the user's parameters, and
// which of the two inputs it reads.
type TokensStageParams struct {
	TokensParams
	// FromDocuments tokenizes training documents instead of instructions: every token a target.
	FromDocuments bool `json:"from_documents,omitempty"`
	// MaxTokens stops after that many tokens; 0 takes all.
	MaxTokens int64 `json:"max_tokens,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p TokensStageParams) Defaults() TokensStageParams {
	p.TokensParams = p.TokensParams.Defaults()
	return p
}
