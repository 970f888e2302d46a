package llm

import (
	"fmt"

	"github.com/longalign/longalign-go/datasets"
)

// Range is what a quantity may come to.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

func (r Range) times(f float64) Range { return Range{r.Low * f, r.High * f} }

func (r Range) plus(o Range) Range { return Range{r.Low + o.Low, r.High + o.High} }

// Workload is what a teacher will be asked about.
type Workload struct {
	Instances Range // how many are made
	Tokens    Range // of the documents they are made from, a document counted once for each of its instances
}

// Forecast is what that will take.
type Forecast struct {
	Requests     Range `json:"requests"`
	InputTokens  Range `json:"input_tokens"`
	OutputTokens Range `json:"output_tokens"`
	USD          Range `json:"usd"`
}

// Tokens of a request beside the document, and of replies. The upper ends of replies are the endpoint's max_tokens.
const (
	leastPrompt, mostPrompt = 40, 300
	leastProposal           = 60
	leastAnswer             = 20
	// otherTokenizer is how far the teacher's count of a text is from ours, either way.
	otherTokenizer = 1.3
)

// Estimate forecasts two requests for each instance: the least is that every first try is of use, with short replies; the most that
// every attempt is needed and every reply as long as max_tokens allows.
func Estimate(e datasets.EndpointParams, p datasets.InstructionsParams, w Workload) Forecast {
	e, p = e.Defaults(), p.Defaults()
	most := float64(p.Attempts)
	f := Forecast{
		Requests: Range{2 * w.Instances.Low, 2 * most * w.Instances.High},
		InputTokens: Range{2 / otherTokenizer * w.Tokens.Low, 2 * otherTokenizer * most * w.Tokens.High}.
			plus(Range{2 * leastPrompt * w.Instances.Low, 2 * most * mostPrompt * w.Instances.High}),
		OutputTokens: Range{min(float64(e.MaxTokens), leastProposal+leastAnswer) * w.Instances.Low, 2 * most * float64(e.MaxTokens) * w.Instances.High},
	}
	return f.Priced(e)
}

// Priced is f with what its tokens cost at the endpoint's prices.
func (f Forecast) Priced(e datasets.EndpointParams) Forecast {
	f.USD = f.InputTokens.times(e.PriceIn / 1e6).plus(f.OutputTokens.times(e.PriceOut / 1e6))
	return f
}

// AskText adds requests about a text of so many bytes, to which up to added tokens will come that are not there yet: one request if the
// first try is of use, else up to tries. Replies have at least shortest tokens.
func (f *Forecast) AskText(bytes, added, tries, shortest, longest int) {
	// How many bytes a token spells differs by tokenizer and language.
	const fewest, most = 2, 5
	n := float64(tries)
	f.Requests = f.Requests.plus(Range{1, n})
	f.InputTokens = f.InputTokens.plus(Range{float64(bytes) / most, n * (float64(bytes)/fewest + float64(added))})
	f.OutputTokens = f.OutputTokens.plus(Range{float64(min(shortest, longest)), n * float64(longest)})
}

// String is the forecast on one line.
func (f Forecast) String() string {
	return fmt.Sprintf("%.0f to %.0f requests, %.3g to %.3g M tokens in, %.3g to %.3g M out, %.2f to %.2f USD",
		f.Requests.Low, f.Requests.High, f.InputTokens.Low/1e6, f.InputTokens.High/1e6, f.OutputTokens.Low/1e6, f.OutputTokens.High/1e6, f.USD.Low, f.USD.High)
}
