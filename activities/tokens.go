package activities

import (
	"context"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/instructions"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// tokensStage turns instructions (or documents, for pre-training) into token sequences with labels. Outputs:
// tokens.bin (see package tokens), report.json.
var tokensStage = stage{name: "tokens", version: 1, describe: describeParams[datasets.TokensStageParams], run: runTokens}

func runTokens(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.TokensStageParams](j.call.Params)
	if err != nil {
		return err
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return err
	}
	path := filepath.Join(j.dir, "tokens.bin")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tokens.NewWriter(f)
	var report datasets.TokensReport
	if p.FromDocuments {
		report, err = j.tokenizeDocuments(ctx, tok, p, w)
	} else {
		report, err = j.tokenizeInstructions(ctx, tok, p, w)
	}
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := tokens.CheckReport(report); err != nil {
		return badData("%w", err)
	}
	j.count("sequences", int64(report.Sequences))
	j.count("tokens", report.Ledger.Trained+report.Ledger.Prompt)
	j.count("truncated", int64(report.Truncated))
	if j.manifest.Ledger, err = json.Marshal(report.Ledger); err != nil {
		return err
	}
	if err := j.putFile(ctx, "tokens.bin", "application/octet-stream", path); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

func (j *job) tokenizeInstructions(ctx context.Context, tok *tokenizer.Tokenizer, p datasets.TokensStageParams, w *tokens.Writer) (datasets.TokensReport, error) {
	template, err := chat.Resolve(p.Template, tok)
	if err != nil {
		return datasets.TokensReport{}, badConfig("tokens.template: %w", err)
	}
	encoder := tokens.EncoderFunc(func(messages []datasets.Message) (ids, labels []int32, err error) {
		return template.Encode(tok, messages)
	})
	drawn, err := j.drawInstances(ctx, p.TokensParams)
	if err != nil {
		return datasets.TokensReport{}, err
	}
	n := -1
	counted := func(yield func(datasets.Instance, error) bool) {
		for i, err := range j.instances(ctx, "instructions", trainFile) {
			if n++; n%500 == 0 {
				j.report(ctx, Progress{Done: int64(n), Unit: "instance"})
			}
			if err == nil && drawn != nil && !drawn[n] {
				continue
			}
			if !yield(i, err) {
				return
			}
		}
	}
	report, err := tokens.Tokenize(ctx, counted, 0, encoder, p.TokensParams, w)
	if err != nil {
		return report, badData("%w", err)
	}
	return report, nil
}

// drawInstances returns the numbers of the instances to train on, nil for all.
func (j *job) drawInstances(ctx context.Context, p datasets.TokensParams) (map[int]bool, error) {
	if p.Instances == 0 {
		return nil, nil
	}
	n := 0
	for _, err := range j.instances(ctx, "instructions", trainFile) {
		if err != nil {
			return nil, err
		}
		n++
	}
	if p.Instances > n {
		return nil, badConfig("tokens.instances: %d are asked for, the teacher made %d; lower it, or take more documents", p.Instances, n)
	}
	numbers, err := instructions.Prefix(n, p.Instances, p.Seed)
	if err != nil {
		return nil, badConfig("tokens.instances: %w", err)
	}
	drawn := map[int]bool{}
	for _, i := range numbers {
		drawn[i] = true
	}
	return drawn, nil
}

// tokenizeDocuments cuts training documents, in an order drawn by seed, into sequences of at most MaxLength tokens. Each
// document ends with EOS, and every token is a target.
func (j *job) tokenizeDocuments(ctx context.Context, tok *tokenizer.Tokenizer, p datasets.TokensStageParams, w *tokens.Writer) (datasets.TokensReport, error) {
	var texts []string
	for d, err := range j.documents(ctx) {
		if err != nil {
			return datasets.TokensReport{}, err
		}
		if d.Split == datasets.SplitTrain {
			texts = append(texts, d.Text)
		}
	}
	datasets.Shuffle(pretrainOrder(), texts)
	var report datasets.TokensReport
	eos, hasEOS := tok.EOS()
	for n, text := range texts {
		ids := tok.EncodeOrdinary(text)
		if hasEOS {
			ids = append(ids, eos)
		}
		report.Instances++
		for part := range slicesOf(ids, p.MaxLength) {
			if p.MaxTokens > 0 && report.Ledger.Input >= p.MaxTokens {
				return report, nil
			}
			seq := datasets.Sequence{IDs: part}
			if seq.Targets() == 0 {
				report.Ledger.Drop(len(part))
				continue
			}
			if err := w.Add(seq, n, 1); err != nil {
				return report, err
			}
			report.Sequences++
			report.Ledger.Kept(len(part), seq)
		}
		if n%100 == 0 {
			j.report(ctx, Progress{Done: report.Ledger.Input, Total: p.MaxTokens, Unit: "token"})
		}
	}
	return report, nil
}

// pretrainOrder draws the order in which documents are pre-trained on; it depends on their number alone.
func pretrainOrder() *datasets.Rand { return datasets.NewRand(0, 0x70726574) }

func slicesOf(ids []int32, n int) iter.Seq[[]int32] {
	return func(yield func([]int32) bool) {
		for len(ids) > 0 {
			k := min(n, len(ids))
			if !yield(ids[:k]) {
				return
			}
			ids = ids[k:]
		}
	}
}

// sequences maps the token sequences of an input into memory.
func (j *job) sequences(ctx context.Context, role string) (*tokens.Set, func(), error) {
	blob, err := j.inputBlob(ctx, role, "tokens.bin")
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(j.dir, role+".bin")
	if err := j.a.Store.FetchBlob(ctx, blob, path); err != nil {
		return nil, nil, err
	}
	data, unmap, err := tokens.Map(path)
	if err != nil {
		return nil, nil, err
	}
	shard, err := tokens.Open(data)
	if err != nil {
		_ = unmap()
		return nil, nil, badData("tokens of input %s: %w", role, err)
	}
	return tokens.NewSet(shard), func() { _ = unmap() }, nil
}
