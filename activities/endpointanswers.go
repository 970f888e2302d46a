package activities

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	forecast, total, err := j.answersForecast(ctx, base)
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(j.dir, answersFile))
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	sent, err := newLines(filepath.Join(j.dir, sentFile))
	if err != nil {
		return err
	}
	defer sent.close()
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
		answers, asked := make([]datasets.Answer, len(group)), make([][]sentTurn, len(group))
		work, ctx := errgroup.WithContext(ctx)
		work.SetLimit(base.Concurrency)
		for i, q := range group {
			work.Go(func() (err error) {
				answers[i], asked[i], err = e.ask(ctx, ask, q)
				return err
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
		for i, a := range answers {
			j.countAnswer(a)
			for _, turn := range asked[i] {
				if err := sent.add(turn); err != nil {
					return err
				}
			}
			if _, err := w.Write(append(mustMarshal(a), '\n')); err != nil {
				return err
			}
		}
		done += int64(len(group))
		j.report(ctx, Progress{Done: done, Total: int64(total), Unit: "answer"})
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
	if err := errors.Join(w.Flush(), out.Close(), sent.close()); err != nil {
		return err
	}
	j.note("answered by %s, whose service applies its own chat template, also where LongBench wants none", base.Model)
	// The endpoint's own max_tokens and temperature, in the parameters, are not what questions were asked with.
	for _, part := range slices.Sorted(maps.Keys(askers)) {
		p := askers[part].params
		j.note("sampling: max_tokens %d, temperature %g; longer questions lost their middle to fit %d tokens (0: were sent whole)", p.MaxTokens, *p.Temperature, e.window)
	}
	j.count("predictions", done)
	var usage llm.Usage
	for _, a := range askers {
		usage.Add(a.Usage())
	}
	if err := j.putUsage(ctx, base, usage, forecast); err != nil {
		return err
	}
	if err := j.putFile(ctx, sentFile, "application/zstd", filepath.Join(j.dir, sentFile)); err != nil {
		return err
	}
	return j.putFile(ctx, answersFile, "application/jsonl", out.Name())
}

// messageTokens and conversationTokens are held back for what the service's template puts around each message and all of them, and for
// differences between its tokenizer and ours.
const (
	messageTokens      = 16
	conversationTokens = 32
)

// fit cuts a conversation to the window, the answer's tokens and reserve more held back: the longest message loses its middle first.
func (e *engine) fit(q datasets.Question, messages []datasets.Message, reserve int) (fitting []datasets.Message, tokens, cut int, err error) {
	fitting = slices.Clone(messages)
	count := func() (n int) {
		for _, m := range fitting {
			n += e.tok.Count(m.Content)
		}
		return n
	}
	tokens = count()
	whole, room := tokens, e.window-q.MaxNewTokens-reserve-messageTokens*len(messages)
	if room < 16 {
		return nil, 0, 0, fmt.Errorf("the answer may have %d tokens, the window has %d: nothing is left for the question", q.MaxNewTokens, e.window)
	}
	// A character that is cut apart has more tokens when it is tokenized anew, which cutting the same way again need not end (Chinese in a
	// vocabulary of bytes): each round takes more away.
	for round := range 12 {
		if tokens <= room {
			break
		}
		longest := 0
		for i, m := range fitting {
			if len(m.Content) > len(fitting[longest].Content) {
				longest = i
			}
		}
		keep := (e.tok.Count(fitting[longest].Content) - (tokens - room) - (1<<round - 1)) &^ 1
		fitting[longest].Content, _ = longbench.Truncate(ordinary{e.tok}, fitting[longest].Content, max(2, keep))
		tokens = count()
	}
	if tokens > room {
		return nil, 0, 0, fmt.Errorf("the conversation cannot be cut to the %d tokens that the window of %d leaves for it", room, e.window)
	}
	return fitting, tokens, whole - tokens, nil
}

// send asks for the next turn. A service that says the conversation is too long for it, which counts with another tokenizer, gets less.
func (e *engine) send(ctx context.Context, t *asker, q datasets.Question, messages []datasets.Message) (reply datasets.TeacherReply, asked datasets.AskedTurn, sent []datasets.Message, err error) {
	asked = datasets.AskedTurn{MaxTokens: q.MaxNewTokens, Temperature: q.Temperature}
	sent = messages
	for reserve := conversationTokens; ; reserve = 2*reserve + e.window/16 {
		if e.tok != nil {
			fitting, tokens, cut, fitErr := e.fit(q, messages, reserve)
			if fitErr != nil {
				if err == nil { // else the service's own words say more
					err = fmt.Errorf("%w: %w", instructions.ErrRejected, fitErr)
				}
				return reply, asked, sent, err
			}
			sent, asked.Tokens, asked.Cut = fitting, tokens, cut
		}
		reply, err = t.Ask(ctx, datasets.TeacherRequest{Kind: datasets.RequestAnswer, Messages: sent})
		if e.tok == nil || !tooLong(err) {
			return reply, asked, sent, err
		}
	}
}

// tooLong tells whether a service refused a conversation for its length, by the words of those that are in use.
func tooLong(err error) bool {
	var call *llm.CallError
	if !errors.As(err, &call) || call.Problem != llm.Rejected {
		return false
	}
	message := strings.ToLower(call.Message)
	return slices.ContainsFunc([]string{"context length", "context_length", "context window", "context size", "too long", "max_model_len", "maximum context", "too many tokens"},
		func(words string) bool { return strings.Contains(message, words) })
}

// ask holds one conversation. What was sent for each turn is kept word for word.
func (e *engine) ask(ctx context.Context, t *asker, q datasets.Question) (datasets.Answer, []sentTurn, error) {
	a := datasets.Answer{ID: q.ID, Dataset: q.Dataset, Template: "service"}
	var messages []datasets.Message
	var turns []sentTurn
	for i, turn := range q.Turns {
		messages = append(messages, datasets.Message{Role: datasets.RoleUser, Content: turn})
		reply, asked, sent, err := e.send(ctx, t, q, messages)
		if err == nil || failsAlone(err) {
			sum := sha256.Sum256(mustMarshal(sent))
			asked.SHA256 = hex.EncodeToString(sum[:])
			a.Asked = append(a.Asked, asked)
			a.Truncated = a.Truncated || asked.Cut > 0
			turns = append(turns, sentTurn{ID: q.ID, Turn: i + 1, Messages: sent})
		}
		switch {
		case err != nil && failsAlone(err):
			a.Failed = err.Error()
			return a, turns, nil
		case err != nil:
			return a, turns, err
		case reply.Finish == "refusal":
			a.Failed = "the service refused to answer"
			return a, turns, nil
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
	return a, turns, nil
}

// sentFile holds what an endpoint was sent, a row a turn, in the order of the answers.
const sentFile = "asked.jsonl.zst"

// sentTurn is a row of sentFile. The digest of Messages as JSON is in the answer.
type sentTurn struct {
	ID       string             `json:"_id"`
	Turn     int                `json:"turn"` // from 1
	Messages []datasets.Message `json:"messages"`
}

// failsAlone tells whether an endpoint's error concerns one request only.
func failsAlone(err error) bool {
	return errors.Is(err, instructions.ErrRejected) || errors.Is(err, instructions.ErrMalformed) || errors.Is(err, instructions.ErrUnanswered)
}

// asker is an endpoint's teacher with what this stage may spend.
type asker struct {
	*llm.Teacher
	budget *llm.Budget
	params datasets.EndpointParams
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
	}), budget, p}, nil
}

// putUsage stores what asking took, and what it should have.
func (j *job) putUsage(ctx context.Context, p datasets.EndpointParams, u llm.Usage, forecast llm.Forecast) error {
	j.count("requests", int64(u.Requests))
	j.count("replies journaled before", int64(u.Journaled))
	j.count(spentCount, int64(u.SpentUSD*1e6+0.5))
	return j.putMeasured(ctx, requestsFile, RequestsReport{p.Describe(), u, forecast, p.MaxCostUSD})
}
