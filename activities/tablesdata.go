package activities

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/documents"
	"github.com/longalign/longalign-go/datasets/tokens"
	"github.com/longalign/longalign-go/reports"
)

// DataRole is the input of the tables stage that holds the documents, instructions or tokens of a cell, where they are not those of
// the study's first cell.
func DataRole(role, cell string) string { return role + "/" + cell }

// dataRole is the input that holds a cell's documents, instructions or tokens.
func (j *job) dataRole(role, cell string) string {
	if own := DataRole(role, cell); j.hasInput(own) {
		return own
	}
	return role
}

// cellRoles are the inputs that are a cell's alone.
func (j *job) cellRoles(c TablesCell) []string {
	roles := []string{"batches/" + c.Name, "checkpoint/" + c.Name}
	if !c.NoDocuments {
		roles = append(roles, "scores/"+c.Name)
	}
	for _, role := range []string{"documents", "instructions", "tokens"} {
		if own := DataRole(role, c.Name); j.hasInput(own) {
			roles = append(roles, own)
		}
	}
	return append(roles, j.benchmarkRoles(c)...)
}

// datasetOf is the published name of what a method was trained on.
func (p TablesParams) datasetOf(method string) string {
	for _, m := range p.Methods {
		if m.Name == method && m.Dataset != "" {
			return m.Dataset
		}
	}
	return p.Dataset
}

// cellsData are the inputs that hold what some of a study's cells were trained and tested on.
type cellsData struct {
	// name tells them from those of the other cells: data sets, or methods; "" where all cells have the same.
	name string
	// documents and instructions are "" where conversations alone were trained on.
	documents, instructions, tokens string
}

// dataOf lists the data of a study's cells, each once, those of the first cell first.
func (j *job) dataOf(p TablesParams) []cellsData {
	if !j.hasInput("tokens") {
		return nil // every cell failed before there was data
	}
	var out []cellsData
	var names [][]string
	for _, c := range p.Cells {
		d := cellsData{tokens: j.dataRole("tokens", c.Name)}
		if !c.NoDocuments {
			d.documents, d.instructions = j.dataRole("documents", c.Name), j.dataRole("instructions", c.Name)
		}
		i := slices.IndexFunc(out, func(o cellsData) bool {
			in := j.call.Inputs
			return in[o.documents] == in[d.documents] && in[o.instructions] == in[d.instructions] && in[o.tokens] == in[d.tokens]
		})
		if i < 0 {
			i = len(out)
			out, names = append(out, d), append(names, nil)
		}
		names[i] = unionOf(names[i], []string{p.dataName(c.Method)})
	}
	for i := range out {
		if len(out) > 1 {
			out[i].name = strings.Join(names[i], ", ")
		}
	}
	return out
}

// dataName is what tables call the data of a method among those of others: by its data set, or by its own name.
func (p TablesParams) dataName(method string) string {
	for _, m := range p.Methods {
		if m.Name != method {
			continue
		}
		if m.Dataset != "" {
			return m.Dataset
		}
		if m.Label != "" {
			return m.Label
		}
	}
	return method
}

// dataSummary says what cells were trained and tested on.
func (j *job) dataSummary(ctx context.Context, of cellsData) (*reports.DataSummary, error) {
	s := &reports.DataSummary{Name: of.name}
	if of.documents != "" {
		if err := j.countDocuments(ctx, of.documents, s); err != nil {
			return nil, err
		}
		if err := j.countInstructions(ctx, of.instructions, s); err != nil {
			return nil, err
		}
	}
	set, err := j.sequenceIndex(ctx, of.tokens)
	if err != nil {
		return nil, err
	}
	s.AnswerLengths, s.InputLengths = set.Targets(), set.Lengths()
	var tokenized datasets.TokensReport
	if err := j.readJSON(ctx, of.tokens, "report.json", &tokenized); err != nil {
		return nil, err
	}
	s.CutOff = tokenized.CutAnswers - tokenized.Dropped[tokens.DroppedNoTarget] - tokenized.Dropped[tokens.DroppedCutAnswer]
	for _, reason := range slices.Sorted(maps.Keys(tokenized.Dropped)) {
		s.LeftOut = append(s.LeftOut, reports.Count{Name: reason, N: tokenized.Dropped[reason]})
	}
	m, err := j.input(ctx, of.tokens)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Counts)) {
		if source, ok := strings.CutPrefix(name, drawnFrom); ok {
			s.Drawn = append(s.Drawn, reports.Count{Name: source, N: int(m.Counts[name])})
		}
	}
	for _, role := range []string{of.documents, of.instructions, of.tokens} {
		if role != "" {
			s.Sources = append(s.Sources, reports.Source(j.call.Inputs[role]))
		}
	}
	return s, nil
}

// countDocuments counts the documents kept, by source, and those dropped, by reason.
func (j *job) countDocuments(ctx context.Context, role string, s *reports.DataSummary) error {
	var d datasets.DocumentsReport
	if err := j.readJSON(ctx, role, "report.json", &d); err != nil {
		return err
	}
	kept, heldOutOf, tokens := map[string]int{}, map[string]int{}, map[string]int64{}
	repeated := reports.Count{Name: "repetitions of long documents"}
	for doc, err := range lines[datasets.Document](ctx, j, role, "documents.jsonl.zst") {
		if err != nil {
			return err
		}
		if doc.Copy > 0 {
			repeated.N++
			repeated.Tokens += int64(doc.Tokens)
			continue
		}
		kept[doc.Source]++
		if doc.Split == datasets.SplitHeldOut {
			heldOutOf[doc.Source]++
		}
		tokens[doc.Source] += int64(doc.Tokens)
	}
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		s.Documents = append(s.Documents, reports.Count{Name: name, N: kept[name], HeldOut: heldOutOf[name], Tokens: tokens[name]})
	}
	if repeated.N > 0 {
		s.Documents = append(s.Documents, repeated)
	}
	for _, reason := range slices.Sorted(maps.Keys(d.Dropped)) {
		if reason == documents.DroppedContaminated && len(d.Contaminated) > 0 {
			for _, benchmark := range slices.Sorted(maps.Keys(d.Contaminated)) {
				s.Dropped = append(s.Dropped, reports.Count{Name: "overlaps " + benchmark, N: d.Contaminated[benchmark]})
			}
			continue
		}
		s.Dropped = append(s.Dropped, reports.Count{Name: reason, N: d.Dropped[reason]})
	}
	return nil
}

// countInstructions counts instructions by task.
func (j *job) countInstructions(ctx context.Context, role string, s *reports.DataSummary) error {
	answers := map[datasets.TaskType][]int{}
	heldOut := map[datasets.TaskType]int{}
	for i, err := range j.instances(ctx, role, trainFile) {
		if err != nil {
			return err
		}
		if i.Meta != nil {
			answers[i.Meta.Task] = append(answers[i.Meta.Task], i.Meta.AnswerTokens)
		}
	}
	for i, err := range j.instances(ctx, role, heldOutFile) {
		if err != nil {
			return err
		}
		if i.Meta != nil {
			heldOut[i.Meta.Task]++
		}
	}
	for _, task := range datasets.TaskTypes {
		if n := answers[task]; len(n) > 0 || heldOut[task] > 0 {
			slices.Sort(n)
			c := reports.TaskCount{Task: string(task), Train: len(n), HeldOut: heldOut[task]}
			if len(n) > 0 {
				c.MedianAnswer = n[len(n)/2]
			}
			s.Instances = append(s.Instances, c)
		}
	}
	var asked datasets.InstructionsReport
	if err := j.readJSON(ctx, role, "report.json", &asked); err != nil {
		return err
	}
	for _, reason := range slices.Sorted(maps.Keys(asked.Failed)) {
		s.GivenUp = append(s.GivenUp, reports.Count{Name: reason, N: asked.Failed[reason]})
	}
	return nil
}
