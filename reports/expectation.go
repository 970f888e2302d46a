package reports

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Expectation is a contrast that was stated before the run. Strings and tags are those
// of the specification's YAML.
type Expectation struct {
	// Text says in words what is expected and why.
	Text string `json:"text,omitempty" yaml:"text"`
	// Metric is a [Metric] in text form: "loss/1-7", "share/128+", "padded_tokens".
	Metric string `json:"metric" yaml:"metric"`
	// A and B are methods.
	A string `json:"a" yaml:"a"`
	B string `json:"b" yaml:"b"`
	// Direction says how A compares with B: ExpectLower, ExpectHigher or ExpectEqual.
	Direction string `json:"direction" yaml:"direction"`
}

// Directions of an expectation.
const (
	ExpectLower  = "lower"
	ExpectHigher = "higher"
	ExpectEqual  = "equal"
)

// Verdict is what came of an expectation.
type Verdict string

// Verdicts. A difference that is expected and not found is WithinNoise: it was neither
// shown nor refuted. An equality is Held when no difference was found.
const (
	Held        Verdict = "held"
	NotHeld     Verdict = "not held"
	WithinNoise Verdict = "within noise"
	NotMeasured Verdict = "not measured"
	// TooFew and Unfinished decide nothing: fewer samples than MinPairs, or a seed or samples that are still to come.
	TooFew     Verdict = "too few samples"
	Unfinished Verdict = "incomplete"
)

// Observation is an expectation with what the numbers say about it.
type Observation struct {
	Expectation Expectation `json:"expectation"`
	// Claim is what was expected, in words.
	Claim   string  `json:"claim"`
	Verdict Verdict `json:"verdict"`
	// Observed says what came out, in words and numbers.
	Observed string   `json:"observed"`
	Contrast Contrast `json:"contrast"`
}

// Class is the verdict as a name for style sheets.
func (v Verdict) Class() string { return strings.ReplaceAll(string(v), " ", "-") }

// Validate says what is wrong with e as written; methods are those of the study.
func (e Expectation) Validate(methods []string) error {
	if _, err := ParseMetric(e.Metric); err != nil {
		return fmt.Errorf("expectation: %w", err)
	}
	switch e.Direction {
	case ExpectLower, ExpectHigher, ExpectEqual:
	default:
		return fmt.Errorf("expectation about %s: direction %q is not known; use lower, higher or equal", e.Metric, e.Direction)
	}
	for _, m := range []string{e.A, e.B} {
		if !slices.Contains(methods, m) {
			return fmt.Errorf("expectation about %s: there is no method %q; the study has %s", e.Metric, m, strings.Join(methods, ", "))
		}
	}
	if e.A == e.B {
		return fmt.Errorf("expectation about %s compares %s with itself", e.Metric, e.A)
	}
	return nil
}

// Observe evaluates every expectation of s.
func Observe(s *Study) []Observation {
	out := make([]Observation, len(s.Expected))
	for i, e := range s.Expected {
		out[i] = s.observe(e)
	}
	return out
}

func (s *Study) observe(e Expectation) Observation {
	o := Observation{Expectation: e, Claim: s.claim(e), Verdict: NotMeasured}
	var names []string
	for _, m := range s.methods() {
		names = append(names, m.Name)
	}
	if err := e.Validate(names); err != nil {
		o.Observed = err.Error()
		return o
	}
	m, err := ParseMetric(e.Metric)
	if err != nil {
		o.Observed = err.Error()
		return o
	}
	c := s.contrast(m, s.of(e.A), s.of(e.B))
	o.Contrast = c
	if c.Unpaired != "" {
		o.Observed = "not measured: " + c.Unpaired
		if m.Name == metricShare && !slices.Contains(s.buckets(), *m.Bucket) {
			o.Observed = fmt.Sprintf("not measured: the study has no range %s; its ranges are %s", m.Bucket, joinBuckets(s.buckets()))
		}
		return o
	}
	up, down := c.Low > 0, c.High < 0
	if c.Exact && m.measured() && len(c.PerSeed) < 2 {
		up, down = false, false // one timing says nothing about its noise
	}
	switch e.Direction {
	case ExpectEqual:
		o.Verdict = Held
		if up || down {
			o.Verdict = NotHeld
		}
	case ExpectHigher:
		o.Verdict = verdict(up, down)
	case ExpectLower:
		o.Verdict = verdict(down, up)
	}
	o.Observed = s.sentence(m, e, c)
	switch lacks := s.lacks(m, e, c); {
	case c.Few:
		o.Verdict = TooFew
		o.Observed += fmt.Sprintf(" %d samples are too few to tell: it takes %d, and two of each group.", c.N, MinPairs)
	case lacks != "":
		o.Verdict = Unfinished
		o.Observed += " Not final: " + lacks + "."
	}
	return o
}

// lacks says what an observation still waits for, "" when it has all seeds and samples.
func (s *Study) lacks(m Metric, e Expectation, c Contrast) string {
	wanted := s.seeds()
	for _, name := range []string{e.A, e.B} {
		have := len(s.of(name))
		for cell := range s.Missing {
			if slices.Contains(strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune("=,/", r) }), name) {
				have++
			}
		}
		wanted = max(wanted, have)
	}
	if n := len(c.PerSeed); n < wanted {
		return fmt.Sprintf("%d of %d seeds have results of both", n, wanted)
	}
	if c.Exact {
		return ""
	}
	for _, name := range []string{e.A, e.B} {
		if cell := s.cell(m, s.of(name)); cell.Incomplete {
			return s.label(name) + " lacks samples"
		}
	}
	return ""
}

func joinBuckets(buckets []Bucket) string {
	var names []string
	for _, b := range buckets {
		names = append(names, b.String())
	}
	return strings.Join(names, ", ")
}

// claim says e in words: its own, or made from its fields.
func (s *Study) claim(e Expectation) string {
	switch {
	case e.Text != "":
		return e.Text
	case e.Direction == ExpectEqual:
		return fmt.Sprintf("%s of %s equals that of %s", e.Metric, s.label(e.A), s.label(e.B))
	}
	return fmt.Sprintf("%s of %s is %s than that of %s", e.Metric, s.label(e.A), e.Direction, s.label(e.B))
}

func verdict(asExpected, opposite bool) Verdict {
	switch {
	case asExpected:
		return Held
	case opposite:
		return NotHeld
	}
	return WithinNoise
}

// sentence says what c found: "packing: held-out loss is 0.120 nats/token lower than with naive …".
func (s *Study) sentence(m Metric, e Expectation, c Contrast) string {
	col := metricColumn(m)
	scale := metricScale(m)
	word := "higher"
	if c.Diff < 0 {
		word = "lower"
	}
	text := fmt.Sprintf("%s: %s is %s %s than with %s", s.label(e.A), col.Name,
		strings.TrimLeft(col.formatNumber(scale*c.Diff), "\u2212+")+unitSuffix(col.Unit), word, s.label(e.B))
	if magnitude := col.formatNumber(scale * math.Abs(c.Diff)); strings.Trim(magnitude, "0.") == "" {
		half := strconv.FormatFloat(0.5*math.Pow10(-col.Decimals), 'f', col.Decimals+1, 64)
		text = fmt.Sprintf("%s: %s differs by less than %s from that with %s", s.label(e.A), col.Name, half+unitSuffix(col.Unit), s.label(e.B))
	}
	if c.Diff == 0 {
		text = fmt.Sprintf("%s: %s is the same as with %s", s.label(e.A), col.Name, s.label(e.B))
	}
	signed := col.signed()
	if low, high := signed.formatNumber(scale*c.Low), signed.formatNumber(scale*c.High); low != high {
		text += fmt.Sprintf(" (95 %% interval %s to %s", low, high)
		if !c.Exact {
			text += fmt.Sprintf(", n = %d", c.N)
		}
		text += ")"
	}
	if len(c.PerSeed) > 1 {
		var seeds []string
		for _, d := range c.PerSeed {
			seeds = append(seeds, signed.formatNumber(scale*d))
		}
		text += "; by seed " + strings.Join(seeds, ", ")
	}
	return text + "."
}

func unitSuffix(u string) string {
	if u == "" {
		return ""
	}
	return "\u00a0" + u
}

// metricColumn describes how m is printed.
func metricColumn(m Metric) Column {
	c := Column{Name: m.Name, Decimals: 3}
	switch m.Name {
	case MetricLoss:
		c = Column{Name: "held-out loss", Unit: "nats/token", Decimals: 3, Better: Lower}
	case MetricNeedle:
		c = Column{Name: "needle gain", Unit: "nats", Decimals: 3, Better: Higher}
	case MetricExact:
		c = Column{Name: "exact match", Unit: "%", Decimals: 1, Better: Higher}
	case MetricF1:
		c = Column{Name: "F1", Unit: "%", Decimals: 1, Better: Higher}
	case metricShare:
		c = Column{Name: "share of the loss", Unit: "points", Decimals: 1}
	case metricEfficiency:
		c = Column{Name: "share of real tokens", Unit: "points", Decimals: 1, Better: Higher}
	case "idle":
		c = Column{Name: "simulated idle time", Unit: "points", Decimals: 1, Better: Lower}
	case "steps", "real_tokens", "padded_tokens":
		c = Column{Name: strings.ReplaceAll(m.Name, "_", " "), Decimals: 0}
	case "seconds":
		c = Column{Name: "measured time", Unit: "s", Decimals: 1, Better: Lower}
	case "tokens_per_second":
		c = Column{Name: "measured tokens a second", Decimals: 0, Better: Higher}
	}
	if m.Bucket != nil {
		c.Name += " at answers of " + m.Bucket.String() + " tokens"
	}
	return c
}

// metricScale turns shares of 1 into percent.
func metricScale(m Metric) float64 {
	switch m.Name {
	case metricShare, metricEfficiency, "idle":
		return 100
	}
	return 1
}
