package workflows

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// ProgressQuery is the query that starter asks a run for its state.
const ProgressQuery = "progress"

// RunProgress is a run's answer to ProgressQuery.
type RunProgress struct {
	Experiment string        `json:"experiment"`
	Cells      int           `json:"cells"`
	CellsDone  int           `json:"cells_done"`
	Failed     []string      `json:"failed,omitempty"` // cells
	Stages     []StageCount  `json:"stages"`
	Running    []RunningCall `json:"running,omitempty"`
	Message    string        `json:"message,omitempty"`
}

// StageCount counts a stage's results so far.
type StageCount struct {
	Stage  string `json:"stage"`
	Made   int    `json:"made"`
	Reused int    `json:"reused"`
}

// RunningCall is a stage in the making.
type RunningCall struct {
	Stage      string `json:"stage"`
	Label      string `json:"label"`
	WorkflowID string `json:"workflow_id,omitempty"` // empty while its key is being resolved
	Waiting    bool   `json:"waiting,omitempty"`     // another run makes it
}

// progress keeps what a run shows of itself: to queries, and in the UI's current details.
type progress struct {
	state RunProgress
	// uses are the manifests the run has used since they were last recorded.
	uses []activities.Use
	seen map[string]bool
	// unfinished are the pointers of trainings that were begun here and have no result yet.
	unfinished map[string]bool
}

func newProgress(ctx workflow.Context) *progress {
	p := &progress{seen: map[string]bool{}, unfinished: map[string]bool{}}
	for _, s := range activities.Stages {
		p.state.Stages = append(p.state.Stages, StageCount{Stage: s})
	}
	// A query handler that cannot be set only takes the live view away.
	_ = workflow.SetQueryHandler(ctx, ProgressQuery, func() (RunProgress, error) { return p.state, nil })
	return p
}

func (p *progress) say(ctx workflow.Context, message string) {
	p.state.Message = message
	p.show(ctx)
}

func (p *progress) begin(ctx workflow.Context, call activities.Call) {
	p.state.Running = append(p.state.Running, RunningCall{Stage: call.Stage, Label: call.Label})
	p.state.Message = ""
	p.show(ctx)
}

func (p *progress) running(call activities.Call) *RunningCall {
	i := slices.IndexFunc(p.state.Running, func(r RunningCall) bool { return r.Stage == call.Stage && r.Label == call.Label })
	if i < 0 {
		return &RunningCall{}
	}
	return &p.state.Running[i]
}

func (p *progress) making(ctx workflow.Context, call activities.Call) {
	p.running(call).WorkflowID = stageWorkflowID(call)
	p.show(ctx)
}

func (p *progress) wait(ctx workflow.Context, call activities.Call) {
	p.running(call).Waiting = true
	p.show(ctx)
}

func (p *progress) end(ctx workflow.Context, call activities.Call) {
	p.state.Running = slices.DeleteFunc(p.state.Running, func(r RunningCall) bool { return r.Stage == call.Stage && r.Label == call.Label })
	p.show(ctx)
}

// use notes that a cell uses a result, once for each pair.
func (p *progress) use(cell Cell, role string, r stageResult) {
	key := cell.Name + "\x00" + role + "\x00" + r.Ref.String()
	if p.seen[key] {
		return
	}
	p.seen[key] = true
	p.uses = append(p.uses, activities.Use{Cell: cell.Name, Role: role, Ref: r.Ref, Reused: r.Reused})
	if p.seen[r.Ref.String()] {
		return
	}
	p.seen[r.Ref.String()] = true
	for i := range p.state.Stages {
		if p.state.Stages[i].Stage == r.Ref.Stage {
			if r.Reused {
				p.state.Stages[i].Reused++
			} else {
				p.state.Stages[i].Made++
			}
		}
	}
}

// take returns the uses not yet recorded and forgets them.
func (p *progress) take() []activities.Use {
	u := p.uses
	p.uses = nil
	return u
}

// show writes the state as Markdown, for the Temporal UI.
func (p *progress) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, p.state.Markdown(workflow.GetInfo(ctx).Namespace))
}

// inLinkText keeps a name from ending the Markdown link, or the cell of a table, that it stands in.
var inLinkText = strings.NewReplacer("[", `\[`, "]", `\]`, "|", `\|`)

// uiLink is a Markdown link to a workflow of the UI that shows it. It is relative to the UI's own address, which only the browser knows.
func uiLink(text, namespace, workflowID string) string {
	return fmt.Sprintf("[%s](namespaces/%s/workflows/%s)", inLinkText.Replace(text), url.PathEscape(namespace), url.PathEscape(workflowID))
}

// resultLink names a result and leads to the workflow that made it: the UI shows what it was made of, and of what that was. Nothing
// leads into the store, whose objects are signed for or are files.
func resultLink(ref artifact.Ref, namespace string) string {
	return uiLink(ref.String(), namespace, makerID(ref.Stage, ref.Key))
}

// Markdown is the run's state for the Temporal UI of a namespace.
func (r RunProgress) Markdown(namespace string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**: %d of %d cells finished", r.Experiment, r.CellsDone, r.Cells)
	if len(r.Failed) > 0 {
		fmt.Fprintf(&b, ", failed: %s", strings.Join(r.Failed, ", "))
	}
	b.WriteString("\n\n| stage | made | reused | in the making |\n|---|---:|---:|---|\n")
	for _, s := range r.Stages {
		var now []string
		for _, c := range r.Running {
			if c.Stage != s.Stage {
				continue
			}
			name := c.Label
			if c.WorkflowID != "" {
				name = uiLink(c.Label, namespace, c.WorkflowID)
			}
			if c.Waiting {
				name += " (another run makes it)"
			}
			now = append(now, name)
		}
		if len(now) > 4 {
			now = append(now[:4:4], fmt.Sprintf("and %d more", len(now)-4))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s |\n", s.Stage, s.Made, s.Reused, strings.Join(now, "; "))
	}
	if r.Message != "" {
		b.WriteString("\n" + r.Message + "\n")
	}
	return b.String()
}

// tablesDetails is what the UI shows of a finished run.
func tablesDetails(r RunProgress, tables artifact.Ref, namespace string) string {
	return r.Markdown(namespace) + fmt.Sprintf("\nTables: %s. Print them with `starter report` and this workflow's ID.\n", resultLink(tables, namespace))
}
