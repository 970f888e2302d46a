package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// tokensStage turns instructions (or documents, for pre-training) into token sequences with labels. Outputs: files of sequences (see
// package tokens) in order, each made from as many instances or documents as a shard has, and report.json. A joined result refers to its
// shards' files: nothing is copied.
var tokensStage = stage{
	name: "tokens", version: 4, describe: describeParams[datasets.TokensStageParams], outside: mixFiles, run: runTokens,
	division: &division{size: tokensInShard, items: tokensItems, join: joinTokens},
}

// Sizes of shards: a few minutes' work. Documents for pre-training are long.
const (
	instancesInShard         = 20_000
	pretrainDocumentsInShard = 5_000
)

func tokensInShard(raw json.RawMessage) (int, error) {
	p, err := decodeParams[datasets.TokensStageParams](raw)
	if err != nil {
		return 0, err
	}
	if p.FromDocuments {
		return pretrainDocumentsInShard, nil
	}
	return instancesInShard, nil
}

func tokensItems(ctx context.Context, j *job) (iter.Seq2[any, error], error) {
	p, err := decodeParams[datasets.TokensStageParams](j.call.Params)
	if err != nil {
		return nil, err
	}
	if p.FromDocuments {
		return j.pretrainItems(ctx, p)
	}
	parts, err := j.portions(ctx, p.TokensParams)
	if err != nil {
		return nil, err
	}
	return anyOf(training(parts)), nil
}

func runTokens(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.TokensStageParams](j.call.Params)
	if err != nil {
		return err
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return err
	}
	work := j.tokenizeInstructions
	if p.FromDocuments {
		work = j.tokenizeDocuments
	}
	files := &tokenFiles{j: j}
	if files.size, err = j.a.shardSize(tokensInShard, j.call.Params); err != nil {
		return err
	}
	defer files.abandon()
	report, err := work(ctx, tok, p, files)
	if err != nil {
		return err
	}
	if err := files.finish(ctx); err != nil {
		return err
	}
	return j.putTokensReport(ctx, report)
}

// tokenFiles writes a stage's sequences, those of size instances into one file. A file is stored when the next begins.
type tokenFiles struct {
	j    *job
	size int
	made int
	f    *os.File
	w    *tokens.Writer
}

const tokensType = "application/octet-stream"

// tokensName is the name of file k. An only file has no number.
func tokensName(k int, only bool) string {
	if only {
		return "tokens.bin"
	}
	return fmt.Sprintf("tokens-%06d.bin", k)
}

// next begins a file.
func (t *tokenFiles) next(ctx context.Context) (*tokens.Writer, error) {
	if t.f != nil {
		if err := t.store(ctx, false); err != nil {
			return nil, err
		}
	}
	var err error
	if t.f, err = os.Create(filepath.Join(t.j.dir, "tokens")); err != nil {
		return nil, err
	}
	t.w = tokens.NewWriter(t.f)
	return t.w, nil
}

// finish stores the last file.
func (t *tokenFiles) finish(ctx context.Context) error {
	if t.f == nil {
		if _, err := t.next(ctx); err != nil {
			return err
		}
	}
	return t.store(ctx, t.made == 0)
}

func (t *tokenFiles) store(ctx context.Context, only bool) error {
	path := t.f.Name()
	if err := t.w.Close(); err != nil {
		return err
	}
	if err := t.f.Close(); err != nil {
		return err
	}
	t.f = nil
	if err := t.j.putFile(ctx, tokensName(t.made, only), tokensType, path); err != nil {
		return err
	}
	t.made++
	return os.Remove(path)
}

func (t *tokenFiles) abandon() {
	if t.f != nil {
		_ = t.f.Close()
	}
}

// putTokensReport stores the report and enters its counts.
func (j *job) putTokensReport(ctx context.Context, report datasets.TokensReport) error {
	if j.shard == nil {
		if err := tokens.CheckReport(report); err != nil {
			return badData("%w", err)
		}
		if tokens.AllTruncated(report) {
			j.manifest.Warnings = append(j.manifest.Warnings, fmt.Sprintf("every one of the %d sequences is longer than max_length and was cut or dropped", report.Instances))
		}
	}
	if j.call.Shards == nil || j.shard != nil { // joined counts are the shards' sums already
		j.count("sequences", int64(report.Sequences))
		j.count("tokens", report.Ledger.Trained+report.Ledger.Prompt)
		j.count("truncated", int64(report.Truncated))
		if report.CutAnswers > 0 {
			j.count("answers cut off", int64(report.CutAnswers))
		}
		if report.EmptyReplies > 0 {
			j.count("empty replies removed", int64(report.EmptyReplies))
		}
		for reason, n := range report.Dropped {
			j.count("dropped: "+reason, int64(n))
		}
	}
	var err error
	if j.manifest.Ledger, err = json.Marshal(report.Ledger); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

func (j *job) tokenizeInstructions(ctx context.Context, tok *tokenizer.Tokenizer, p datasets.TokensStageParams, files *tokenFiles) (datasets.TokensReport, error) {
	var report datasets.TokensReport
	template, err := chat.Resolve(p.Template, tok)
	if err != nil {
		return report, badConfig("tokens.template: %w", err)
	}
	encoder := tokens.EncoderFunc(func(messages []datasets.Message) (ids, labels []int32, err error) {
		return template.Encode(tok, messages)
	})
	var all iter.Seq2[datasets.Instance, error]
	if j.shard != nil {
		all = lines[datasets.Instance](ctx, j, partsRole, j.shard.file())
	} else {
		parts, err := j.portions(ctx, p.TokensParams)
		if err != nil {
			return report, err
		}
		all = training(parts)
	}
	n := int64(0)
	counted := func(yield func(datasets.Instance, error) bool) {
		for i, err := range all {
			if n++; n%500 == 0 {
				j.report(ctx, Progress{Done: n, Unit: "instance"})
			}
			if !yield(i, err) {
				return
			}
		}
	}
	for batch := range inRuns(counted, files.size) {
		w, err := files.next(ctx)
		if err != nil {
			return report, err
		}
		r, err := tokens.Tokenize(ctx, batch, j.shard.first()+report.Instances, encoder, p.TokensParams, w)
		if err != nil {
			return report, badData("%w", err)
		}
		report.Add(r)
	}
	return report, nil
}

// inRuns gives the elements of all in runs of n, each of which must be read to its end. There is no empty run.
func inRuns[T any](all iter.Seq2[T, error], n int) iter.Seq[iter.Seq2[T, error]] {
	return func(yield func(iter.Seq2[T, error]) bool) {
		next, stop := iter.Pull2(all)
		defer stop()
		v, err, ok := next()
		for ok {
			if !yield(func(yield func(T, error) bool) {
				for k := 0; ok && k < n; k++ {
					if !yield(v, err) {
						return
					}
					v, err, ok = next()
				}
			}) {
				return
			}
		}
	}
}

// joinTokens refers to the shards' files.
func joinTokens(ctx context.Context, j *job, shards []*artifact.Manifest) error {
	var report datasets.TokensReport
	for k, m := range shards {
		var r datasets.TokensReport
		if err := j.output(ctx, m, "report.json", &r); err != nil {
			return err
		}
		report.Add(r)
		only := tokensName(0, true)
		out, ok := m.Output(only)
		if !ok {
			return badData("shard %s has no output %q", m.Ref(), only)
		}
		j.addOutput(artifact.Output{Name: tokensName(k, len(shards) == 1), MediaType: tokensType, Blob: out.Blob})
	}
	if err := report.Ledger.Balance(); err != nil {
		return badData("%w", err)
	}
	return j.putTokensReport(ctx, report)
}
