package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.temporal.io/sdk/activity"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// answerLog keeps the answers of an unfinished predictions stage: blobs, named in order by a pointer that only the newest attempt can
// move. A killed stage repeats at most the answers since the pointer last moved.
type answerLog struct {
	j     *job
	lease *artifact.Lease
	state answerState
	rows  bytes.Buffer
	ids   []byte
	fresh int64 // answers in rows
}

// answerState is what the pointer of an unfinished predictions stage holds.
type answerState struct {
	Done   int64        `json:"done"`   // answers in the parts
	Tokens int64        `json:"tokens"` // of their prompts
	Parts  []answerPart `json:"parts,omitempty"`
	Failed int64        `json:"failed,omitempty"`
	Cut    int64        `json:"truncated,omitempty"`
	// Attempts are the numbers of answers with which each attempt began.
	Attempts []int64 `json:"attempts,omitempty"`
}

// answerPart is a run of answers and their prompts.
type answerPart struct {
	Rows    artifact.Blob `json:"rows"`
	Prompts artifact.Blob `json:"prompts"`
}

// mostParts bounds the pointer: more parts than that are joined.
const mostParts = 64

// AnswersPointerName is the name of the pointer to an unfinished predictions stage's answers.
func AnswersPointerName(actionKey string) string { return "predictions/" + actionKey }

// PointerOf is the name of the pointer under which an unfinished stage keeps what is done of a call's result, "" for none.
func PointerOf(call Call) string {
	_, questions := call.Inputs["questions"]
	switch {
	case call.Stage == "checkpoint":
		return PointerName(call.Key)
	case call.Stage == "predictions" && questions && ActivityName(call) == call.Stage:
		return AnswersPointerName(call.Key)
	}
	return ""
}

// attempt names this attempt at the stage.
func (j *job) attempt(ctx context.Context) string {
	if activity.IsActivity(ctx) {
		info := activity.GetInfo(ctx)
		return fmt.Sprintf("%s %s attempt %d", info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.Attempt)
	}
	return fmt.Sprintf("process %d", os.Getpid())
}

// openAnswerLog takes over what earlier attempts have answered, and stops them.
func (j *job) openAnswerLog(ctx context.Context) (*answerLog, error) {
	lease, err := j.a.Store.AcquirePointer(ctx, AnswersPointerName(j.call.Key), j.attempt(ctx))
	if err != nil {
		return nil, err
	}
	l := &answerLog{j: j, lease: lease}
	if v := lease.Value(); len(v) > 0 && string(v) != "null" {
		if err := json.Unmarshal(v, &l.state); err != nil {
			return nil, badData("pointer to answers: %w", err)
		}
		for _, p := range l.state.Parts {
			if err := errors.Join(j.a.Store.CheckBlob(ctx, p.Rows), j.a.Store.CheckBlob(ctx, p.Prompts)); err != nil {
				l.state = answerState{Attempts: l.state.Attempts} // what cannot be read is answered again
				break
			}
		}
	}
	l.state.Attempts = append(l.state.Attempts, l.state.Done)
	return l, lease.Set(ctx, l.state)
}

func (l *answerLog) done() int64  { return l.state.Done + l.fresh }
func (l *answerLog) pending() int { return int(l.fresh) }

// add takes a finished answer.
func (l *answerLog) add(a *asked) {
	for i, ids := range a.prompts {
		offset := l.state.Tokens + int64(len(l.ids)/4)
		a.answer.Prompts = append(a.answer.Prompts, datasets.PromptSpan{Offset: offset, Tokens: len(ids), Cut: a.cut[i]})
		l.ids = packTokens(l.ids, ids)
	}
	l.rows.Write(append(mustMarshal(a.answer), '\n'))
	l.fresh++
	if a.answer.Failed != "" {
		l.state.Failed++
	}
	if a.answer.Truncated {
		l.state.Cut++
	}
}

// save makes the answers durable: blobs first, then the pointer.
func (l *answerLog) save(ctx context.Context) error {
	if l.fresh == 0 {
		return nil
	}
	rows, err := l.j.a.Store.PutBlob(ctx, bytes.NewReader(l.rows.Bytes()))
	if err != nil {
		return err
	}
	prompts, err := l.j.a.Store.PutBlob(ctx, bytes.NewReader(l.ids))
	if err != nil {
		return err
	}
	l.state.Done += l.fresh
	l.state.Tokens += int64(len(l.ids) / 4)
	l.state.Parts = append(l.state.Parts, answerPart{rows, prompts})
	l.rows.Reset()
	l.ids, l.fresh = l.ids[:0], 0
	if len(l.state.Parts) > mostParts {
		if err := l.join(ctx); err != nil {
			return err
		}
	}
	return l.lease.Set(ctx, l.state)
}

// join makes one part of all.
func (l *answerLog) join(ctx context.Context) error {
	rows, prompts, err := l.write(ctx)
	if err != nil {
		return err
	}
	var p answerPart
	if p.Rows, err = l.j.a.Store.PutFile(ctx, rows); err != nil {
		return err
	}
	if p.Prompts, err = l.j.a.Store.PutFile(ctx, prompts); err != nil {
		return err
	}
	l.state.Parts = []answerPart{p}
	return nil
}

// write joins the parts in local files.
func (l *answerLog) write(ctx context.Context) (rows, prompts string, err error) {
	rows, prompts = filepath.Join(l.j.dir, answersFile), filepath.Join(l.j.dir, promptsFile)
	for _, f := range []struct {
		path string
		of   func(answerPart) artifact.Blob
	}{{rows, func(p answerPart) artifact.Blob { return p.Rows }}, {prompts, func(p answerPart) artifact.Blob { return p.Prompts }}} {
		if err := l.writeOne(ctx, f.path, f.of); err != nil {
			return "", "", err
		}
	}
	return rows, prompts, nil
}

func (l *answerLog) writeOne(ctx context.Context, path string, of func(answerPart) artifact.Blob) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for _, p := range l.state.Parts {
		r, err := l.j.a.Store.OpenBlob(ctx, of(p))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// finish makes the stage's outputs of all parts.
func (l *answerLog) finish(ctx context.Context) error {
	if err := l.save(ctx); err != nil {
		return err
	}
	rows, prompts, err := l.write(ctx)
	if err != nil {
		return err
	}
	l.j.count("predictions", l.state.Done)
	l.j.count("prompt_tokens", l.state.Tokens)
	l.j.count("failed", l.state.Failed)
	l.j.count("truncated", l.state.Cut)
	if err := l.j.putFile(ctx, answersFile, "application/jsonl", rows); err != nil {
		return err
	}
	if err := l.j.putFile(ctx, promptsFile, "application/octet-stream", prompts); err != nil {
		return err
	}
	return l.j.putMeasured(ctx, "attempts.json", l.state.Attempts)
}

// eachLine decodes JSON lines.
func eachLine[T any](r io.Reader, name string, each func(T) error) error {
	d := json.NewDecoder(r)
	for n := 1; ; n++ {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = each(v)
		}
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
	}
}
