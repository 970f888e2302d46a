package reports

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/reports/paper"
)

// Params are the parameters of the tables stage.
type Params struct {
	// Kind chooses the tables: demo (held-out loss, costs) or paper; default paper, and demo for a run without benchmarks and ratings.
	Kind string `json:"kind"`
	// Baseline is the method that paired differences are taken against; default the first.
	Baseline string `json:"baseline,omitempty"`
	// Dataset is the training set's published name, where cells are to be compared with published ones.
	Dataset string `json:"dataset,omitempty"`
	// Expected are the contrasts stated before the run.
	Expected []Expectation `json:"expected,omitempty"`
	// Marks are footnotes that hold for every result, such as tiny and synthetic.
	Marks []string `json:"marks,omitempty"`
	// Seed and Resamples are of the bootstrap.
	Seed      uint64 `json:"seed,omitempty"`
	Resamples int    `json:"resamples,omitempty"`
	// Devices is how many devices Figure 5 simulates; default 8, as in the paper.
	Devices int `json:"devices,omitempty"`
	// Ratings are Table 1's input.
	Ratings *RatingsParams `json:"ratings,omitempty"`
}

// RatingsParams name the columns of a CSV file of items × raters.
type RatingsParams struct {
	// Path is of the file, where the tables are made or below s3://; $FETCHED and other variables are replaced.
	Path string `json:"path" key:"-"`
	// Humans are the columns of people's ratings, Judges those of judges'; COLUMN=NAME compares a judge with the published one of
	// that name ("gpt-4", "gpt-4+few-shot").
	Humans []string `json:"humans"`
	Judges []string `json:"judges,omitempty"`
	// Length is the column of answer lengths in tokens, for bias by length; empty if there is none.
	Length string `json:"length,omitempty"`
}

// Raters are the columns with what is known of them.
func (p RatingsParams) Raters() []Rater {
	var raters []Rater
	for _, name := range p.Humans {
		raters = append(raters, Rater{Name: name, Human: true})
	}
	for _, judge := range p.Judges {
		name, published, _ := strings.Cut(judge, "=")
		raters = append(raters, Rater{Name: name, Published: published})
	}
	return raters
}

// validate says what is wrong with p.
func (p RatingsParams) validate() error {
	if p.Path == "" {
		return wrong("ratings.path", "name a CSV file of items × raters")
	}
	if len(p.Humans) == 0 {
		return wrong("ratings.humans", "name the columns of people's ratings")
	}
	for i, x := range p.Raters()[len(p.Humans):] {
		if err := x.Check(); err != nil {
			return wrong(fmt.Sprintf("ratings.judges.%d", i), "%v", err)
		}
	}
	return nil
}

// Check says whether the paper has the judge that r is compared with.
func (r Rater) Check() error {
	judges := paper.JudgeCorrelation()
	if _, ok := judges[r.Published]; r.Published != "" && !ok {
		return fmt.Errorf("%q is not a published judge; use %s", r.Published, strings.Join(slices.Sorted(maps.Keys(judges)), ", "))
	}
	return nil
}

// Defaults returns p with unset fields filled in.
func (p Params) Defaults() Params {
	if p.Kind == "" {
		p.Kind = KindPaper
	}
	if p.Devices == 0 {
		p.Devices = 8
	}
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p Params) Validate() error {
	if p.Kind != KindDemo && p.Kind != KindPaper {
		return wrong("kind", "%q is not known; use demo or paper", p.Kind)
	}
	if p.Devices < 1 {
		return wrong("devices", "%d must be at least 1", p.Devices)
	}
	if p.Ratings != nil {
		if err := p.Ratings.validate(); err != nil {
			return err
		}
	}
	for i, e := range p.Expected {
		// Methods are checked where they are known; here each is taken for granted.
		if err := e.Validate([]string{e.A, e.B}); err != nil {
			return wrong(fmt.Sprintf("expected.%d", i), "%v", err)
		}
	}
	known := (&Table{}).definitions()
	for i, m := range p.Marks {
		if _, ok := known[m]; !ok {
			return wrong(fmt.Sprintf("marks.%d", i), "%q is not known; use %s", m, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return nil
}

func wrong(field, format string, args ...any) error {
	return &datasets.ParamError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
