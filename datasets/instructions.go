package datasets

import (
	"context"
	"fmt"
)

// Roles of messages.
const (
	RoleSystem    = "system"
	RoleUser      = "user"
	RoleAssistant = "assistant"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Instance is one conversation to train on or to be tested with; a line of JSON.
type Instance struct {
	Messages []Message `json:"messages"`
	// Meta is where it comes from; nil for conversations from other people's files.
	Meta *InstanceMeta `json:"meta,omitempty"`
	// Unpaired is how many messages were left out where it was read: replies before the first question, questions after the last reply.
	Unpaired int `json:"-"`
}

// InstanceMeta is an instance's origin.
type InstanceMeta struct {
	// ID is the instance's number among the possible ones of its stage, kept through sampling.
	ID int `json:"id"`
	// Document and Split are the document's.
	Document string `json:"document,omitempty"`
	Split    Split  `json:"split,omitempty"`
	// Task and Lang are the drawn task type and prompt language.
	Task TaskType `json:"task,omitempty"`
	Lang string   `json:"lang,omitempty"`
	// Teacher describes who answered.
	Teacher string `json:"teacher,omitempty"`
	// Kind is the teacher's own name for the kind of question, if it has one.
	Kind string `json:"kind,omitempty"`
	// DocumentTokens and AnswerTokens are lengths, where they were counted.
	DocumentTokens int `json:"document_tokens,omitempty"`
	AnswerTokens   int `json:"answer_tokens,omitempty"`
	// Needle is the passage of the document that holds the answer, for look-ups.
	Needle string `json:"needle,omitempty"`
}

// TaskType is the kind of question asked about a document.
type TaskType string

// The paper's four task types.
const (
	TaskGeneral    TaskType = "general"
	TaskSummary    TaskType = "summary"
	TaskReasoning  TaskType = "reasoning"
	TaskExtraction TaskType = "extraction"
)

// TaskTypes are all of them in the order draws use.
var TaskTypes = []TaskType{TaskGeneral, TaskSummary, TaskReasoning, TaskExtraction}

// RequestKind says what a teacher is asked for.
type RequestKind string

// The two requests of Self-Instruct.
const (
	// RequestPropose asks for five questions about the document.
	RequestPropose RequestKind = "propose"
	// RequestAnswer asks for the answer to one.
	RequestAnswer RequestKind = "answer"
)

// TeacherRequest is one request to a teacher.
type TeacherRequest struct {
	Kind RequestKind `json:"kind"`
	Task TaskType    `json:"task"`
	// Lang is the language of the prompt.
	Lang string `json:"lang"`
	// Document is the text asked about.
	Document Document `json:"-"`
	// Question is the drawn question, for RequestAnswer.
	Question string `json:"question,omitempty"`
	// Messages is the rendered prompt: what a language model is sent.
	Messages []Message `json:"messages"`
	// Sample numbers repeated samples of the same prompt.
	Sample int `json:"sample"`
	// Seed determines an offline teacher's choices.
	Seed uint64 `json:"seed"`
}

// TeacherReply is a teacher's text and what it used.
type TeacherReply struct {
	Text string `json:"text"`
	// InputTokens and OutputTokens are as billed. Estimated tells that the service did not say, and they are guessed from the texts.
	InputTokens  int  `json:"input_tokens,omitempty"`
	OutputTokens int  `json:"output_tokens,omitempty"`
	Estimated    bool `json:"estimated,omitempty"`
	// Finish is why the text ended: stop, length, refusal; empty means stop.
	Finish string `json:"finish,omitempty"`
	// QuestionKind and Needle are known to the offline teacher only.
	QuestionKind string `json:"question_kind,omitempty"`
	Needle       string `json:"needle,omitempty"`
}

// Teacher proposes questions and answers them.
type Teacher interface {
	// Describe names the teacher in manifests and tables; it says so if it is no language model.
	Describe() string
	// Ask answers one request. The same request may be asked again after a failure.
	Ask(ctx context.Context, r TeacherRequest) (TeacherReply, error)
}

// InstructionsParams are the parameters of the instructions stage.
type InstructionsParams struct {
	// Teacher is who answers: offline, or a configured endpoint's name; default offline.
	Teacher string `yaml:"teacher" json:"teacher"`
	// PerDocument is the number of instances made from each training document, default 1,
	// and PerHeldOut from each held-out one, default PerDocument.
	PerDocument int `yaml:"per_document,omitempty" json:"per_document,omitempty"`
	PerHeldOut  int `yaml:"per_held_out,omitempty" json:"per_held_out,omitempty"`
	// Questions is how many are proposed; default 5.
	Questions int `yaml:"questions,omitempty" json:"questions,omitempty"`
	// Attempts is how often an unusable proposal or a refusal is asked anew, with another sample number; default 3.
	Attempts int `yaml:"attempts,omitempty" json:"attempts,omitempty"`
	// Tasks are the task types drawn from; default all four.
	Tasks []TaskType `yaml:"tasks,omitempty" json:"tasks,omitempty"`
	// Prompts are template texts that replace the built-in ones, by name such as "propose/summary/en".
	Prompts map[string]string `yaml:"prompts,omitempty" json:"prompts,omitempty"`
	// PromptsDir is a directory of such templates (propose/summary/en.txt), where the run is started: they are read into Prompts there.
	PromptsDir string `yaml:"prompts_dir,omitempty" json:"prompts_dir,omitempty" key:"-"`
	// Seed determines draws of task types and questions, and the offline teacher.
	Seed uint64 `yaml:"seed" json:"seed"`
}

// Defaults returns p with unset fields filled in.
func (p InstructionsParams) Defaults() InstructionsParams {
	setDefault(&p.Teacher, OfflineTeacher)
	setDefault(&p.PerDocument, 1)
	setDefault(&p.PerHeldOut, p.PerDocument)
	setDefault(&p.Questions, 5)
	setDefault(&p.Attempts, 3)
	if len(p.Tasks) == 0 {
		p.Tasks = TaskTypes
	}
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p InstructionsParams) Validate() error {
	switch {
	case p.Teacher == "":
		return paramError("teacher", "name one, or use offline")
	case p.PerDocument < 1:
		return paramError("per_document", "%d must be at least 1", p.PerDocument)
	case p.PerHeldOut < 1:
		return paramError("per_held_out", "%d must be at least 1", p.PerHeldOut)
	case p.Questions < 1 || p.Questions > 20:
		return paramError("questions", "%d is not between 1 and 20", p.Questions)
	case p.Attempts < 1:
		return paramError("attempts", "%d must be at least 1", p.Attempts)
	}
	for i, t := range p.Tasks {
		switch t {
		case TaskGeneral, TaskSummary, TaskReasoning, TaskExtraction:
		default:
			return paramError(fmt.Sprintf("tasks.%d", i), "%q is not known; use general, summary, reasoning or extraction", t)
		}
	}
	return nil
}

// DeadLetter is an instance that was given up: what it was to be made of, and why it could not.
type DeadLetter struct {
	Document string `json:"document"`
	Copy     int    `json:"copy,omitempty"`
	Instance int    `json:"instance"` // the number it would have had
	Lang     string `json:"lang"`
	Reason   string `json:"reason"` // as counted in InstructionsReport.Failed
	Error    string `json:"error"`
}

// InstructionsReport counts what became of requests.
type InstructionsReport struct {
	Teacher   string `json:"teacher"`
	Instances int    `json:"instances"`
	HeldOut   int    `json:"held_out"`
	// Failed are the instances that gave up after all attempts, by reason.
	Failed map[string]int `json:"failed,omitempty"`
	// Retried are the attempts beyond the first, by reason.
	Retried map[string]int   `json:"retried,omitempty"`
	Tasks   map[TaskType]int `json:"tasks,omitempty"`
	Langs   map[string]int   `json:"langs,omitempty"`
	// Reasoning are the replies that thinking was removed from.
	Reasoning    int   `json:"reasoning,omitempty"`
	InputTokens  int64 `json:"input_tokens,omitempty"`
	OutputTokens int64 `json:"output_tokens,omitempty"`
}

// Add adds o, the counts of another shard, to r.
func (r *InstructionsReport) Add(o InstructionsReport) {
	if r.Teacher == "" {
		r.Teacher = o.Teacher
	}
	r.Instances += o.Instances
	r.HeldOut += o.HeldOut
	r.Reasoning += o.Reasoning
	r.InputTokens += o.InputTokens
	r.OutputTokens += o.OutputTokens
	addCounts(&r.Failed, o.Failed)
	addCounts(&r.Retried, o.Retried)
	addCounts(&r.Tasks, o.Tasks)
	addCounts(&r.Langs, o.Langs)
}

func addCounts[K comparable](to *map[K]int, from map[K]int) {
	for k, n := range from {
		if *to == nil {
			*to = map[K]int{}
		}
		(*to)[k] += n
	}
}

// Check says whether i can be trained on: known roles, some content, an assistant's turn last.
func (i Instance) Check() error {
	if len(i.Messages) == 0 {
		return fmt.Errorf("instance has no messages")
	}
	for k, m := range i.Messages {
		if m.Role != RoleSystem && m.Role != RoleUser && m.Role != RoleAssistant {
			return fmt.Errorf("message %d has role %q; use system, user or assistant", k, m.Role)
		}
	}
	if last := i.Messages[len(i.Messages)-1].Role; last != RoleAssistant {
		return fmt.Errorf("the last message is the %s's, so there is no answer to train on", last)
	}
	return nil
}
