package activities

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// pretrainText is a training document in the order of pre-training: a line of a shard's part.
type pretrainText struct {
	Text string `json:"text"`
	// Most says that the sequences end with the one that brings those of this text to that many tokens; nil takes all.
	Most *int64 `json:"most,omitempty"`
}

// pretrainOrder draws the order in which documents are pre-trained on; it depends on their number alone.
func pretrainOrder() *datasets.Rand { return datasets.NewRand(0, 0x70726574) }

// tokenizeDocuments cuts training documents, in an order drawn by seed, into sequences of at most MaxLength tokens. Each
// document ends with EOS, and every token is a target.
func (j *job) tokenizeDocuments(ctx context.Context, tok *tokenizer.Tokenizer, p datasets.TokensStageParams, files *tokenFiles) (datasets.TokensReport, error) {
	var report datasets.TokensReport
	var all iter.Seq2[pretrainText, error]
	if j.shard != nil {
		all = lines[pretrainText](ctx, j, partsRole, j.shard.file())
	} else {
		spool, err := j.spoolTraining(ctx)
		if err != nil {
			return report, err
		}
		defer spool.close()
		all = spool.shuffled()
	}
	eos, hasEOS := tok.EOS()
	for batch := range inRuns(all, files.size) {
		w, err := files.next(ctx)
		if err != nil {
			return report, err
		}
		done := false
		err = eachEncoded(ctx, tok, batch, func(t pretrainText, ids []int32) (bool, error) {
			if hasEOS {
				ids = append(ids, eos)
			}
			if j.shard == nil && p.MaxTokens > 0 {
				most := p.MaxTokens - report.Ledger.Input
				t.Most = &most
			}
			number := j.shard.first() + report.Instances
			report.Instances++
			taken := int64(0)
			for part := range slicesOf(ids, p.MaxLength) {
				if t.Most != nil && taken >= *t.Most {
					done = true
					return false, nil
				}
				taken += int64(len(part))
				seq := datasets.Sequence{IDs: part}
				if seq.Targets() == 0 {
					report.Ledger.Drop(len(part))
					continue
				}
				if err := w.Add(seq, number, 1); err != nil {
					return false, err
				}
				report.Sequences++
				report.Ledger.Kept(len(part), seq)
			}
			if report.Instances%100 == 0 {
				j.report(ctx, Progress{Done: report.Ledger.Input, Total: p.MaxTokens, Unit: "token"})
			}
			return true, nil
		})
		if err != nil || done {
			return report, err
		}
	}
	return report, nil
}

// pretrainItems are the documents of pre-training in their order, as far as MaxTokens needs them: what is divided among shards.
func (j *job) pretrainItems(ctx context.Context, p datasets.TokensStageParams) (iter.Seq2[any, error], error) {
	spool, err := j.spoolTraining(ctx)
	if err != nil {
		return nil, err
	}
	if p.MaxTokens == 0 {
		return anyOf(spool.shuffled()), nil
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return nil, err
	}
	_, hasEOS := tok.EOS()
	return func(yield func(any, error) bool) {
		left := p.MaxTokens
		err := eachEncoded(ctx, tok, spool.shuffled(), func(t pretrainText, ids []int32) (bool, error) {
			n := int64(len(ids))
			if hasEOS {
				n++
			}
			most := left
			t.Most = &most
			if !yield(t, nil) {
				return false, nil
			}
			whole := int64(p.MaxLength)
			taken := min(n, max(0, (left+whole-1)/whole*whole))
			left -= taken
			return taken == n, nil
		})
		if err != nil {
			yield(nil, err)
		}
	}, nil
}

// textSpool keeps the texts of the training documents in a file, so that they can be read in any order.
type textSpool struct {
	f    *os.File
	ends []int64
}

// spoolTraining writes the training documents of the input into a file that goes with the job.
func (j *job) spoolTraining(ctx context.Context) (*textSpool, error) {
	f, err := os.Create(filepath.Join(j.dir, "pretraining"))
	if err != nil {
		return nil, err
	}
	s := &textSpool{f: f}
	w := bufio.NewWriterSize(f, 1<<20)
	end := int64(0)
	for d, err := range lines[datasets.Document](ctx, j, "documents", "documents.jsonl.zst") {
		if err == nil && d.Split == datasets.SplitTrain {
			_, err = w.WriteString(d.Text)
			end += int64(len(d.Text))
			s.ends = append(s.ends, end)
		}
		if err != nil {
			s.close()
			return nil, err
		}
		if len(s.ends)%1000 == 0 {
			j.report(ctx, Progress{Done: int64(len(s.ends)), Unit: "document", Note: "reading"})
		}
	}
	if err := w.Flush(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *textSpool) close() { _ = s.f.Close() }

// shuffled gives the texts in the order of pre-training.
func (s *textSpool) shuffled() iter.Seq2[pretrainText, error] {
	return func(yield func(pretrainText, error) bool) {
		order := make([]int32, len(s.ends))
		for i := range order {
			order[i] = int32(i)
		}
		datasets.Shuffle(pretrainOrder(), order)
		for _, i := range order {
			from := int64(0)
			if i > 0 {
				from = s.ends[i-1]
			}
			b := make([]byte, s.ends[i]-from)
			if _, err := s.f.ReadAt(b, from); err != nil && (err != io.EOF || len(b) > 0) {
				yield(pretrainText{}, fmt.Errorf("read a document again: %w", err))
				return
			}
			if !yield(pretrainText{Text: string(b)}, nil) {
				return
			}
		}
	}
}

// Texts that are encoded together: enough for all cores, few enough for any memory.
const (
	encodedTexts = 256
	encodedBytes = 16 << 20
)

// eachEncoded encodes texts on all cores and visits them in order, while visit returns true.
func eachEncoded(ctx context.Context, tok *tokenizer.Tokenizer, all iter.Seq2[pretrainText, error], visit func(pretrainText, []int32) (bool, error)) error {
	var texts []pretrainText
	bytes := 0
	flush := func() (bool, error) {
		ids := make([][]int32, len(texts))
		group, ctx := errgroup.WithContext(ctx)
		var next atomic.Int64
		for range min(runtime.GOMAXPROCS(0), len(texts)) {
			group.Go(func() error {
				for i := int(next.Add(1)) - 1; i < len(texts); i = int(next.Add(1)) - 1 {
					if err := ctx.Err(); err != nil {
						return err
					}
					ids[i] = tok.EncodeOrdinary(texts[i].Text)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return false, err
		}
		for i, t := range texts {
			if more, err := visit(t, ids[i]); !more || err != nil {
				return false, err
			}
		}
		texts, bytes = texts[:0], 0
		return true, nil
	}
	for t, err := range all {
		if err != nil {
			return err
		}
		texts = append(texts, t)
		if bytes += len(t.Text); len(texts) == encodedTexts || bytes >= encodedBytes {
			if more, err := flush(); !more || err != nil {
				return err
			}
		}
	}
	_, err := flush()
	return err
}

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
