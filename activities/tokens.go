package activities

import (
	"context"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/datasets/tokens"
)

// tokensStage turns instructions (or documents, for pre-training) into token sequences with labels. Outputs:
// tokens.bin (see package tokens), report.json.
var tokensStage = stage{
	name: "tokens", version: 1, describe: describeParams[datasets.TokensStageParams], outside: mixFiles, run: runTokens,
	division: &division{size: instancesInShard, items: trainingItems, join: joinTokens},
}

// instancesInShard is a few minutes' work. Documents for pre-training are shuffled as a whole and not divided.
func instancesInShard(raw json.RawMessage) (int, error) {
	p, err := decodeParams[datasets.TokensStageParams](raw)
	if err != nil || p.FromDocuments {
		return 0, err
	}
	return 20_000, nil
}

func trainingItems(ctx context.Context, j *job) (iter.Seq2[any, error], error) {
	p, err := decodeParams[datasets.TokensStageParams](j.call.Params)
	if err != nil {
		return nil, err
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
	return j.putTokens(ctx, w, f, path, report)
}

// putTokens stores the sequences and their report.
func (j *job) putTokens(ctx context.Context, w *tokens.Writer, f *os.File, path string, report datasets.TokensReport) error {
	if err := w.Close(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if j.shard == nil {
		if err := tokens.CheckReport(report); err != nil {
			return badData("%w", err)
		}
	}
	if j.call.Shards == nil || j.shard != nil { // joined counts are the shards' sums already
		j.count("sequences", int64(report.Sequences))
		j.count("tokens", report.Ledger.Trained+report.Ledger.Prompt)
		j.count("truncated", int64(report.Truncated))
	}
	var err error
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
	var all iter.Seq2[datasets.Instance, error]
	if j.shard != nil {
		all = lines[datasets.Instance](ctx, j, partsRole, j.shard.file())
	} else {
		parts, err := j.portions(ctx, p.TokensParams)
		if err != nil {
			return datasets.TokensReport{}, err
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
	report, err := tokens.Tokenize(ctx, counted, j.shard.first(), encoder, p.TokensParams, w)
	if err != nil {
		return report, badData("%w", err)
	}
	return report, nil
}

// joinTokens writes the shards' sequences one after the other.
func joinTokens(ctx context.Context, j *job, shards []*artifact.Manifest) error {
	path := filepath.Join(j.dir, "tokens.bin")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tokens.NewWriter(f)
	var report datasets.TokensReport
	for n, m := range shards {
		var r datasets.TokensReport
		if err := j.output(ctx, m, "report.json", &r); err != nil {
			return err
		}
		report.Add(r)
		if err := j.appendSequences(ctx, m, w); err != nil {
			return err
		}
		j.report(ctx, Progress{Done: int64(n + 1), Total: int64(len(shards)), Unit: "shard", Note: "joining"})
	}
	if err := report.Ledger.Balance(); err != nil {
		return badData("%w", err)
	}
	return j.putTokens(ctx, w, f, path, report)
}

// appendSequences copies a shard's sequences through a memory map.
func (j *job) appendSequences(ctx context.Context, m *artifact.Manifest, w *tokens.Writer) error {
	out, ok := m.Output("tokens.bin")
	if !ok {
		return badData("shard %s has no tokens", m.Ref())
	}
	path := filepath.Join(j.dir, "shard.bin")
	if err := j.a.Store.FetchBlob(ctx, out.Blob, path); err != nil {
		return err
	}
	defer os.Remove(path)
	data, unmap, err := tokens.Map(path)
	if err != nil {
		return err
	}
	defer unmap()
	s, err := tokens.Open(data)
	if err != nil {
		return badData("%w", err)
	}
	for i := range s.Len() {
		seq, err := s.Sequence(i)
		if err != nil {
			return badData("%w", err)
		}
		if err := w.Add(seq, s.Instance(i), s.Weight(i)); err != nil {
			return err
		}
	}
	return nil
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
