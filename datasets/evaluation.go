package datasets

import (
	"slices"
	"strconv"
	"strings"
)

// Names of the benchmarks, as spec keys, stage parameters and roles spell them.
const (
	BenchmarkLongBench     = "longbench"
	BenchmarkLongBenchE    = "longbench_e"
	BenchmarkLongBenchChat = "longbench_chat"
	BenchmarkMTBench       = "mt_bench"
	BenchmarkNeedle        = "needle"
	BenchmarkEnQA          = "en_qa"
	BenchmarkShortTasks    = "short_tasks"
)

// OfflineJudge is the judge that needs no network: word overlap with a reference, labelled wherever its numbers appear.
const OfflineJudge = "offline"

// BenchmarksParams say which benchmarks a trained model goes through. Each is optional. Their texts and prompts are the benchmarks'
// own files, given by the user: each path is a directory, a zip archive of one, or a single file where one is enough, on the worker's
// disk or below s3://bucket/prefix.
type BenchmarksParams struct {
	// Predictor is who answers: a named endpoint, or, by default, each cell's checkpoint through our engine.
	Predictor string `json:"predictor,omitempty"`
	// Template is the chat template around questions; default the one of training. LongBench's completion tasks have none.
	Template string `json:"template,omitempty"`
	// MaxLength is the window in tokens, question and answer together; longer questions lose their middle. Default, and at most, the
	// model's context.
	MaxLength int `json:"max_length,omitempty"`
	// Device is where checkpoints answer: auto, host, cuda. Its class is in the action key.
	Device string `json:"device,omitempty" key:"-"`
	// Seed is of sampled answers, of the order of a judge's examples, and of intervals.
	Seed uint64 `json:"seed,omitempty"`

	LongBench     *LongBenchParams  `json:"longbench,omitempty"`
	LongBenchE    *LongBenchParams  `json:"longbench_e,omitempty"`
	LongBenchChat *JudgedParams     `json:"longbench_chat,omitempty"`
	MTBench       *JudgedParams     `json:"mt_bench,omitempty"`
	Needle        *NeedleParams     `json:"needle,omitempty"`
	EnQA          *EnQAParams       `json:"en_qa,omitempty"`
	ShortTasks    *ShortTasksParams `json:"short_tasks,omitempty"`
}

// LongBenchParams choose what of LongBench or LongBench-E is run.
type LongBenchParams struct {
	// Path is the benchmark's unpacked directory or its data.zip; Config the directory of dataset2prompt.json and
	// dataset2maxlen.json, if they are not in Path or, for an archive, beside it.
	Path   string `json:"path" key:"-"`
	Config string `json:"config,omitempty" key:"-"`
	// Datasets are run; default all of the benchmark.
	Datasets []string `json:"datasets,omitempty"`
	// MaxSamples of each dataset are run, the first ones; 0 means all. Tables mark such scores as of a subset.
	MaxSamples int `json:"max_samples,omitempty"`
	// Judge rates answers to questions and summaries as well, for the paper's columns: a named endpoint or offline. Default none.
	Judge string `json:"judge,omitempty"`
}

// JudgedParams choose a benchmark whose answers a judge rates.
type JudgedParams struct {
	// Path is the directory of the benchmark's files.
	Path string `json:"path" key:"-"`
	// Judge is a named endpoint, or offline.
	Judge      string `json:"judge"`
	MaxSamples int    `json:"max_samples,omitempty"`
}

// NeedleParams are the needle test's grid, and what is hidden in what.
type NeedleParams struct {
	// Haystack is a directory of *.txt files.
	Haystack string `json:"haystack" key:"-"`
	// Lengths are in tokens, Depths from 0 to 1; default the paper's 10 × 10.
	Lengths []int     `json:"lengths,omitempty"`
	Depths  []float64 `json:"depths,omitempty"`
	// Needle is the sentence to hide, Question what is asked, Expected the phrases an answer must hold. Needle alone names a known test:
	// longalign, the paper's, which is the default.
	Needle   string   `json:"needle,omitempty"`
	Question string   `json:"question,omitempty"`
	Expected []string `json:"expected,omitempty"`
	// MaxNewTokens bounds an answer; default 64.
	MaxNewTokens int `json:"max_new_tokens,omitempty"`
	// Judge rates the answers as well as exact match does: a named endpoint or offline. Default none.
	Judge string `json:"judge,omitempty"`
}

// EnQAParams choose InfiniteBench's En.QA.
type EnQAParams struct {
	// Path is the file longbook_qa_eng.jsonl or its directory.
	Path       string `json:"path" key:"-"`
	MaxSamples int    `json:"max_samples,omitempty"`
}

// ShortTasksParams say where ARC, HellaSwag, TruthfulQA and MMLU come from: lm-evaluation-harness, whose results are imported, or
// which is run on the checkpoint when it is installed.
type ShortTasksParams struct {
	// Results is the harness's results file; {method} and {seed} in it stand for the cell's.
	Results string `json:"results,omitempty" key:"-"`
	// LMEval runs the program lm_eval against the checkpoint.
	LMEval bool `json:"lm_eval,omitempty"`
}

// Validate says what is wrong with p. endpoints are the names that judges and predictors may have.
func (p BenchmarksParams) Validate(endpoints []string) error {
	known := func(field, name string, offline bool) error {
		if offline && name == OfflineJudge || slices.Contains(endpoints, name) {
			return nil
		}
		names := slices.Clone(endpoints)
		if offline {
			names = append(names, OfflineJudge)
		}
		return paramError(field, "%q is no endpoint of this file; add it under endpoints: (known: %s)", name, strings.Join(names, ", "))
	}
	if p.Predictor != "" {
		if err := known("predictor", p.Predictor, false); err != nil {
			return err
		}
	}
	if p.MaxLength < 0 {
		return paramError("max_length", "%d is negative", p.MaxLength)
	}
	for _, part := range []struct {
		field string
		b     *LongBenchParams
	}{{BenchmarkLongBench, p.LongBench}, {BenchmarkLongBenchE, p.LongBenchE}} {
		field, b := part.field, part.b
		switch {
		case b == nil:
		case b.Path == "":
			return paramError(field+".path", "name the benchmark's directory or archive; starter fetch longbench gets it")
		case b.MaxSamples < 0:
			return paramError(field+".max_samples", "%d is negative", b.MaxSamples)
		case b.Judge != "":
			if err := known(field+".judge", b.Judge, true); err != nil {
				return err
			}
		}
	}
	for _, part := range []struct {
		field string
		b     *JudgedParams
	}{{BenchmarkLongBenchChat, p.LongBenchChat}, {BenchmarkMTBench, p.MTBench}} {
		field, b := part.field, part.b
		switch {
		case b == nil:
			continue
		case b.Path == "":
			return paramError(field+".path", "name the directory of the benchmark's files")
		case b.Judge == "":
			return paramError(field+".judge", "name an endpoint, or offline for word overlap in place of a judge")
		case b.MaxSamples < 0:
			return paramError(field+".max_samples", "%d is negative", b.MaxSamples)
		}
		if err := known(field+".judge", b.Judge, true); err != nil {
			return err
		}
	}
	if b := p.Needle; b != nil {
		switch {
		case b.Haystack == "":
			return paramError("needle.haystack", "name a directory of *.txt files")
		case (b.Question == "") != (len(b.Expected) == 0) || b.Needle == "" && b.Question != "":
			return paramError("needle.needle", "a needle of your own needs needle, question and expected, all three; needle alone names a known test, such as longalign, the paper's")
		case b.MaxNewTokens < 0:
			return paramError("needle.max_new_tokens", "%d is negative", b.MaxNewTokens)
		case b.Judge != "":
			if err := known("needle.judge", b.Judge, true); err != nil {
				return err
			}
		}
	}
	if b := p.EnQA; b != nil && b.Path == "" {
		return paramError("en_qa.path", "name InfiniteBench's longbook_qa_eng.jsonl")
	}
	if b := p.ShortTasks; b != nil {
		switch {
		case (b.Results == "") == !b.LMEval:
			return paramError("short_tasks.results", "name lm-evaluation-harness's results file, or set lm_eval: true to run it, one of the two")
		case b.LMEval && p.Predictor != "":
			return paramError("short_tasks.lm_eval", "the harness is run on checkpoints; run it on the endpoint yourself and name its results")
		}
	}
	return nil
}

// BenchmarkPlan is what one benchmark asks of the stages: questions → predictions → judgments → scores.
type BenchmarkPlan struct {
	Name      string
	Questions *QuestionsParams // nil for the short tasks, whose questions are the harness's own
	Judge     string           // "" for none
	Scores    BenchmarkScoresParams
	// Harness says that lm-evaluation-harness asks the questions; else, without questions, its results are imported.
	Harness bool
}

// Plans lists the benchmarks for one cell, in the order of the keys.
func (p BenchmarksParams) Plans(method string, seed uint64) []BenchmarkPlan {
	var all []BenchmarkPlan
	add := func(judge string, q QuestionsParams) {
		all = append(all, BenchmarkPlan{Name: q.Benchmark, Questions: &q, Judge: judge,
			Scores: BenchmarkScoresParams{Benchmark: q.Benchmark, Datasets: q.Datasets, MaxSamples: q.MaxSamples}})
	}
	longBench := func(name string, b *LongBenchParams) {
		if b != nil {
			add(b.Judge, QuestionsParams{Benchmark: name, Path: b.Path, Config: b.Config, Datasets: b.Datasets, MaxSamples: b.MaxSamples})
		}
	}
	judged := func(name string, b *JudgedParams) {
		if b != nil {
			add(b.Judge, QuestionsParams{Benchmark: name, Path: b.Path, MaxSamples: b.MaxSamples})
		}
	}
	longBench(BenchmarkLongBench, p.LongBench)
	longBench(BenchmarkLongBenchE, p.LongBenchE)
	judged(BenchmarkLongBenchChat, p.LongBenchChat)
	judged(BenchmarkMTBench, p.MTBench)
	if b := p.Needle; b != nil {
		n := *b
		n.Judge, n.Haystack = "", ""
		add(b.Judge, QuestionsParams{Benchmark: BenchmarkNeedle, Path: b.Haystack, Needle: &n})
	}
	if b := p.EnQA; b != nil {
		add("", QuestionsParams{Benchmark: BenchmarkEnQA, Path: b.Path, MaxSamples: b.MaxSamples})
	}
	if b := p.ShortTasks; b != nil {
		file := strings.NewReplacer("{method}", method, "{seed}", strconv.FormatUint(seed, 10)).Replace(b.Results)
		all = append(all, BenchmarkPlan{Name: BenchmarkShortTasks, Harness: b.LMEval, Scores: BenchmarkScoresParams{Benchmark: BenchmarkShortTasks, Results: file}})
	}
	return all
}

// QuestionsParams are what the questions stage is called with: one benchmark's files become questions and references.
type QuestionsParams struct {
	Benchmark string `json:"benchmark"`
	// Path and Config are where the benchmark's files are; their digests are in the action key.
	Path       string   `json:"path" key:"-"`
	Config     string   `json:"config,omitempty" key:"-"`
	Datasets   []string `json:"datasets,omitempty"`
	MaxSamples int      `json:"max_samples,omitempty"`
	// Needle is set for the needle test; its haystack is Path.
	Needle *NeedleParams `json:"needle,omitempty"`
}

// AnswerParams make the predictions stage answer a benchmark's questions.
type AnswerParams struct {
	Benchmark string `json:"benchmark"`
	// Endpoint answers; nil means the input "checkpoint".
	Endpoint *EndpointParams `json:"endpoint,omitempty"`
	Seed     uint64          `json:"seed,omitempty"`
	// Every is how many answers are made between two entries of the journal; default 8.
	Every int `json:"every,omitempty" key:"-"`
}

// JudgmentsParams are what the judgments stage is called with.
type JudgmentsParams struct {
	Benchmark string `json:"benchmark"`
	// Judge is the endpoint's name in the experiment file, for people.
	Judge string `json:"judge" key:"-"`
	// Endpoint is nil for the offline judge.
	Endpoint *EndpointParams `json:"endpoint,omitempty"`
	Seed     uint64          `json:"seed,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p JudgmentsParams) Defaults() JudgmentsParams {
	if p.Endpoint != nil {
		e := p.Endpoint.Defaults()
		p.Endpoint = &e
	}
	return p
}

// BenchmarkScoresParams make the scores stage score a benchmark.
type BenchmarkScoresParams struct {
	Benchmark  string   `json:"benchmark"`
	Datasets   []string `json:"datasets,omitempty"`
	MaxSamples int      `json:"max_samples,omitempty"`
	// AnsweredBy is the model of the endpoint that answered in place of the cell's checkpoint, "" for the checkpoint.
	AnsweredBy string `json:"answered_by,omitempty"`
	// Results is the file of lm-evaluation-harness that is imported, unless the input "predictions" holds one.
	Results string `json:"results,omitempty" key:"-"`
}

// ScoresStageParams are what the scores stage is called with.
type ScoresStageParams struct {
	ScoresParams
	// Benchmark is set to score a benchmark instead of the held-out instructions.
	Benchmark *BenchmarkScoresParams `json:"benchmark,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p ScoresStageParams) Defaults() ScoresStageParams {
	p.ScoresParams = p.ScoresParams.Defaults()
	return p
}

// Question is what a model is asked in a benchmark.
type Question struct {
	// ID is unique in the benchmark: "qasper/4f3e…".
	ID      string `json:"_id"`
	Dataset string `json:"dataset"`
	// Turns are what the user says, one after the other; each is answered before the next is said.
	Turns []string `json:"turns"`
	// Completion texts go to the model as they are, without a chat template.
	Completion bool `json:"completion,omitempty"`
	// StopAtNewline ends an answer at its first line break.
	StopAtNewline bool    `json:"stop_at_newline,omitempty"`
	MaxNewTokens  int     `json:"max_new_tokens"`
	Temperature   float64 `json:"temperature,omitempty"` // 0 is greedy
}

// Reference is what is needed to score the answer to the question of the same ID.
type Reference struct {
	ID      string `json:"_id"`
	Dataset string `json:"dataset"`
	// Answers are right ones, any of which counts; of MT-Bench one a turn, where there is one.
	Answers []string `json:"answers,omitempty"`
	// Questions are what a judge is shown of the question: not the document.
	Questions  []string       `json:"questions,omitempty"`
	AllClasses []string       `json:"all_classes,omitempty"`
	Length     int            `json:"length,omitempty"` // the input's, as the benchmark counts it
	Category   string         `json:"category,omitempty"`
	Index      int            `json:"index,omitempty"` // LongBench-Chat's number, MT-Bench's question_id
	Examples   []RatedExample `json:"examples,omitempty"`
	Needle     *NeedlePlace   `json:"needle,omitempty"`
}

// RatedExample is an answer that a person has rated.
type RatedExample struct {
	Answer string  `json:"answer"`
	Rating float64 `json:"rating"`
}

// NeedlePlace is one cell of the needle test: what was asked for, and what it became.
type NeedlePlace struct {
	Length       int      `json:"length"`
	Depth        float64  `json:"depth"`
	ActualDepth  float64  `json:"actual_depth"`
	ActualTokens int      `json:"actual_tokens"`
	Needle       string   `json:"needle"`
	Expected     []string `json:"expected"`
}

// Answer is a model's answer to a Question, and how it came about.
type Answer struct {
	ID      string `json:"_id"`
	Dataset string `json:"dataset"`
	// Texts are the answers, one a turn.
	Texts []string `json:"texts"`
	// Prompts are the exact prompts, one a turn, as tokens of prompts.bin. Endpoints do not tell theirs.
	Prompts []PromptSpan `json:"prompts,omitempty"`
	// Asked is what an endpoint was asked, one a turn; the words are in the result's asked.jsonl.zst.
	Asked []AskedTurn `json:"asked,omitempty"`
	// Template is the chat template around the question, "" for none; "service" where an endpoint applies its own.
	Template string `json:"template,omitempty"`
	// Finish says why each text ended: stop or length.
	Finish []string `json:"finish,omitempty"`
	// Truncated says that a prompt lost its middle.
	Truncated bool `json:"truncated,omitempty"`
	// Failed says why there is no answer.
	Failed string `json:"failed,omitempty"`
}

// PromptSpan is a prompt's place in prompts.bin, little-endian 32-bit token IDs.
type PromptSpan struct {
	Offset int64 `json:"offset"` // in tokens
	Tokens int   `json:"tokens"`
	// Cut tokens were taken out of its middle.
	Cut int `json:"cut,omitempty"`
}

// AskedTurn is one request to an endpoint, whose own tokens nobody is told.
type AskedTurn struct {
	// SHA256 is the digest of the messages that were sent, as JSON.
	SHA256 string `json:"sha256"`
	// Tokens are those of the messages by the experiment's tokenizer, after Cut tokens were taken out of the middle; 0 where nothing
	// bounds the question.
	Tokens      int     `json:"tokens,omitempty"`
	Cut         int     `json:"cut,omitempty"`
	MaxTokens   int     `json:"max_tokens"`
	Temperature float64 `json:"temperature"`
}

// Judgment is a judge's rating of one answer.
type Judgment struct {
	ID      string  `json:"_id"`
	Dataset string  `json:"dataset"`
	Turn    int     `json:"turn,omitempty"` // from 1, of MT-Bench
	Rating  float64 `json:"rating"`
	Failed  string  `json:"failed,omitempty"`
	// Replies are what the judge said, in the order it was asked.
	Replies []JudgeReply `json:"replies,omitempty"`
}

// JudgeReply is one reply of a judge.
type JudgeReply struct {
	Round int    `json:"round"`
	Try   int    `json:"try"`
	Text  string `json:"text"`
}
