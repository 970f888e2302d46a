package activities

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/instructions"
	"github.com/longalign/longalign-go/datasets/longbench"
)

// answerByEndpoint asks an endpoint. Its journal keeps each reply, so that the stage itself needs none.
func answerByEndpoint(ctx context.Context, j *job, p datasets.PredictionsStageParams) (err error) {
	base := *p.Answer.Endpoint
	e := &engine{j: j, window: p.MaxLength}
	if p.MaxLength > 0 {
		// Cut by the experiment's tokenizer: the service's own is not known here.
		if e.tok, err = j.tokenizer(ctx, "tokenizer"); err != nil {
			return err
		}
	}
	total, err := j.counted(ctx, "questions", "questions")
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(j.dir, answersFile))
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	var group []datasets.Question
	done := int64(0)
	askers := map[string]*asker{} // one a length and temperature, which the endpoint's parameters fix
	defer func() {
		for _, a := range askers {
			err = errors.Join(err, a.close(context.WithoutCancel(ctx)))
		}
	}()
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		part := fmt.Sprintf("%d-%g", group[0].MaxNewTokens, group[0].Temperature)
		ask := askers[part]
		if ask == nil {
			params := base
			params.MaxTokens, params.Temperature = group[0].MaxNewTokens, &group[0].Temperature
			if ask, err = j.openAsker(ctx, params, part); err != nil {
				return err
			}
			askers[part] = ask
		}
		answers := make([]datasets.Answer, len(group))
		work, ctx := errgroup.WithContext(ctx)
		work.SetLimit(base.Concurrency)
		for i, q := range group {
			work.Go(func() (err error) {
				answers[i], err = e.ask(ctx, ask, q)
				return err
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
		for _, a := range answers {
			j.countAnswer(a)
			if _, err := w.Write(append(mustMarshal(a), '\n')); err != nil {
				return err
			}
		}
		done += int64(len(group))
		j.report(ctx, Progress{Done: done, Total: total, Unit: "answer"})
		group = nil
		return nil
	}
	for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
		if err != nil {
			return err
		}
		// One group has one length and temperature, and so one set of limits.
		if len(group) > 0 && (group[0].MaxNewTokens != q.MaxNewTokens || group[0].Temperature != q.Temperature || len(group) >= 4*base.Concurrency) {
			if err := flush(); err != nil {
				return err
			}
		}
		select {
		case <-j.stopping(ctx):
			return handover("the worker is stopping; replies are journaled")
		default:
		}
		group = append(group, q)
	}
	if err := flush(); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), out.Close()); err != nil {
		return err
	}
	j.note("answered by %s, whose service applies its own chat template, also where LongBench wants none", base.Model)
	j.count("predictions", done)
	var usage llm.Usage
	for _, a := range askers {
		usage.Add(a.Usage())
	}
	if err := j.putUsage(ctx, base, usage); err != nil {
		return err
	}
	return j.putFile(ctx, answersFile, "application/jsonl", out.Name())
}

// ask holds one conversation.
func (e *engine) ask(ctx context.Context, t *asker, q datasets.Question) (datasets.Answer, error) {
	a := datasets.Answer{ID: q.ID, Dataset: q.Dataset, Template: "service"}
	var messages []datasets.Message
	for _, turn := range q.Turns {
		if e.tok != nil {
			if keep := (e.window - q.MaxNewTokens) &^ 1; keep < 16 {
				a.Failed = fmt.Sprintf("the answer may have %d tokens, the window has %d: nothing is left for the question", q.MaxNewTokens, e.window)
				return a, nil
			} else if cut, truncated := longbench.Truncate(ordinary{e.tok}, turn, keep); truncated {
				turn, a.Truncated = cut, true
			}
		}
		messages = append(messages, datasets.Message{Role: datasets.RoleUser, Content: turn})
		reply, err := t.Ask(ctx, datasets.TeacherRequest{Kind: datasets.RequestAnswer, Messages: messages})
		switch {
		case err != nil && failsAlone(err):
			a.Failed = err.Error()
			return a, nil
		case err != nil:
			return a, err
		case reply.Finish == "refusal":
			a.Failed = "the service refused to answer"
			return a, nil
		}
		text := reply.Text
		if q.StopAtNewline {
			text = firstLine(text)
		}
		if reply.Finish == "" {
			reply.Finish = "stop"
		}
		a.Texts, a.Finish = append(a.Texts, text), append(a.Finish, reply.Finish)
		messages = append(messages, datasets.Message{Role: datasets.RoleAssistant, Content: text})
	}
	return a, nil
}

// failsAlone tells whether an endpoint's error concerns one request only.
func failsAlone(err error) bool {
	return errors.Is(err, instructions.ErrRejected) || errors.Is(err, instructions.ErrMalformed) || errors.Is(err, instructions.ErrUnanswered)
}

// asker is an endpoint's teacher with what this stage may spend.
type asker struct {
	*llm.Teacher
	budget *llm.Budget
}

func (a *asker) close(ctx context.Context) error { return a.budget.Close(ctx) }

// budget is what this part of the stage may spend at an endpoint: all stages of a run that ask it share its cap.
func (j *job) budget(p datasets.EndpointParams, part string) *llm.Budget {
	run := j.call.Run
	if run == "" {
		run = j.call.Key // asked for outside of a run
	}
	return llm.NewBudget(j.a.Store, llm.Ledger(run, p), j.call.Stage+" "+j.call.Key+" "+part, p.MaxCostUSD)
}

// openAsker prepares to ask an endpoint, within what is left of its cap.
func (j *job) openAsker(ctx context.Context, p datasets.EndpointParams, part string) (*asker, error) {
	endpoint, err := j.a.Endpoints.Endpoint(p)
	if err != nil {
		return nil, badConfig("endpoint %s: %w", p.Model, err)
	}
	budget := j.budget(p, part)
	return &asker{llm.NewTeacher(endpoint, j.a.Store, budget, j.attempt(ctx), func(llm.Usage) {
		j.moves.Add(1) // what waits for a slow service does not stand still
	}), budget}, nil
}

// putUsage stores what asking took.
func (j *job) putUsage(ctx context.Context, p datasets.EndpointParams, u llm.Usage) error {
	j.count("requests", int64(u.Requests))
	j.count("replies journaled before", int64(u.Journaled))
	j.count(spentCount, int64(u.SpentUSD*1e6+0.5))
	return j.putMeasured(ctx, requestsFile, struct {
		Model  string    `json:"model"`
		Usage  llm.Usage `json:"usage"`
		CapUSD float64   `json:"cap_usd,omitempty"`
	}{p.Describe(), u, p.MaxCostUSD})
}
