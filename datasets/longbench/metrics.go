package longbench

import (
	"errors"
	"fmt"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// Metric is how a dataset's predictions are compared with its answers.
type Metric string

// The benchmark's metrics.
const (
	QAF1             Metric = "qa_f1"
	QAF1Chinese      Metric = "qa_f1_zh"
	RougeL           Metric = "rouge_l"
	RougeLChinese    Metric = "rouge_l_zh"
	Classification   Metric = "classification"
	Retrieval        Metric = "retrieval"
	RetrievalChinese Metric = "retrieval_zh"
	Count            Metric = "count"
	CodeSimilarity   Metric = "code_similarity"
)

// errNoJieba is returned where a Chinese metric has no dictionary.
var errNoJieba = errors.New("scoring Chinese text needs jieba's dictionary; pass one (jieba.Open)")

// pairScore is one prediction compared with one gold answer.
type pairScore struct {
	compat, corrected float64
	// reason names the correction that made the two differ, or might have.
	reason Correction
}

func same(score float64) pairScore { return pairScore{compat: score, corrected: score} }

// scorer compares predictions with answers. It reuses its buffers, so one
// goroutine uses it at a time.
type scorer struct {
	words *jieba.Dictionary
	rouge rouge
	code  matcher

	lastText  string // of the last Chinese cut: one prediction meets several answers
	lastWords []string
}

// compare scores one prediction, already cut to its first line where that rule
// holds, against one answer. compatClasses are the classes the reference uses,
// classes those of the row itself.
func (s *scorer) compare(m Metric, prediction, answer string, compatClasses, classes []string) (pairScore, error) {
	switch m {
	case QAF1:
		return same(wordF1(pytext.Fields(NormalizeAnswer(prediction)), pytext.Fields(NormalizeAnswer(answer)))), nil
	case QAF1Chinese:
		p, err := s.cut(prediction)
		if err != nil {
			return pairScore{}, err
		}
		return same(wordF1(normalizedWords(p), normalizedWords(s.words.Cut(answer)))), nil
	case RougeL:
		return s.rouge.score(prediction, answer, englishDepth), nil
	case RougeLChinese:
		p, err := s.cut(prediction)
		if err != nil {
			return pairScore{}, err
		}
		return s.rouge.score(strings.Join(p, " "), strings.Join(s.words.Cut(answer), " "), chineseDepth), nil
	case Classification:
		compat := classification(prediction, answer, compatClasses, true)
		return pairScore{compat, classification(prediction, answer, classes, false), SkippedClass}, nil
	case Retrieval:
		return retrieval(prediction, answer, "Paragraph ")
	case RetrievalChinese:
		return retrieval(prediction, answer, "段落")
	case Count:
		return same(shareOfNumbers(prediction, answer)), nil
	case CodeSimilarity:
		return s.codeSimilarity(prediction, answer), nil
	}
	return pairScore{}, fmt.Errorf("metric %q is not known", m)
}

func (s *scorer) cut(text string) ([]string, error) {
	if s.words == nil {
		return nil, errNoJieba
	}
	if s.lastWords == nil || text != s.lastText {
		s.lastText, s.lastWords = text, s.words.Cut(text)
	}
	return s.lastWords, nil
}

// NormalizeAnswer is SQuAD's normalisation, on which QA-F1 and SubEM rest:
// lower case, without ASCII punctuation and English articles, single spaces.
func NormalizeAnswer(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && strings.IndexByte(pytext.Punctuation, byte(r)) >= 0 {
			return -1
		}
		return r
	}, pytext.Lower(s))
	return strings.Join(pytext.Fields(removeArticles(s)), " ")
}

// removeArticles replaces the whole words a, an and the by a space.
func removeArticles(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	copied, start, inWord := 0, 0, false
	word := func(end int) {
		switch s[start:end] {
		case "a", "an", "the":
			b.WriteString(s[copied:start])
			b.WriteByte(' ')
			copied = end
		}
	}
	for i, r := range s {
		if w := pytext.IsWord(r); w != inWord {
			if w {
				start = i
			} else {
				word(i)
			}
			inWord = w
		}
	}
	if inWord {
		word(len(s))
	}
	b.WriteString(s[copied:])
	return b.String()
}

// chinesePunctuation is what the benchmark removes from Chinese words, beside
// ASCII punctuation.
const chinesePunctuation = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."

var ignoredInChinese = func() map[rune]bool {
	m := map[rune]bool{}
	for _, r := range pytext.Punctuation + chinesePunctuation {
		m[r] = true
	}
	return m
}()

// normalizedWords lower-cases words, removes punctuation and space from them, and
// drops those of which nothing is left.
func normalizedWords(words []string) []string {
	kept := make([]string, 0, len(words))
	for _, w := range words {
		w = strings.Map(func(r rune) rune {
			if ignoredInChinese[r] || pytext.IsSpace(r) {
				return -1
			}
			return r
		}, pytext.Lower(w))
		if w != "" {
			kept = append(kept, w)
		}
	}
	return kept
}

// wordF1 is the harmonic mean of precision and recall over the bags of words.
// The order of operations is the reference's, so that the last bit agrees.
func wordF1(prediction, answer []string) float64 {
	if len(prediction) == 0 || len(answer) == 0 {
		return 0
	}
	counts := make(map[string]int, len(answer))
	for _, w := range answer {
		counts[w]++
	}
	common := 0
	for _, w := range prediction {
		if counts[w] > 0 {
			counts[w]--
			common++
		}
	}
	if common == 0 {
		return 0
	}
	precision := float64(common) / float64(len(prediction))
	recall := float64(common) / float64(len(answer))
	return float64(2*precision*recall) / (precision + recall)
}

// classification gives 1 divided by the number of class names found in the
// prediction, if the right one is among them. Names that are part of the right
// one do not count. skipping reproduces how the reference drops those: it removes
// from the list it iterates over, which passes over the name after each removed one.
func classification(prediction, answer string, classes []string, skipping bool) float64 {
	var found []string
	for _, c := range classes {
		if strings.Contains(prediction, c) {
			found = append(found, c)
		}
	}
	for i := 0; i < len(found); i++ {
		if c := found[i]; c != answer && strings.Contains(answer, c) {
			// The first equal entry goes, as list.remove does it.
			for j := range found {
				if found[j] == c {
					found = append(found[:j], found[j+1:]...)
					break
				}
			}
			if !skipping {
				i--
			}
		}
	}
	for _, c := range found {
		if c == answer {
			return 1 / float64(len(found))
		}
	}
	return 0
}

// retrieval is the share of numbers in the prediction that are the answer's,
// which follows prefix.
func retrieval(prediction, answer, prefix string) (pairScore, error) {
	for rest := answer; ; {
		_, after, ok := strings.Cut(rest, prefix)
		if !ok {
			return pairScore{}, fmt.Errorf("answer %q has no paragraph number after %q", answer, prefix)
		}
		end := strings.IndexFunc(after, func(r rune) bool { return !pytext.IsDigit(r) })
		if end < 0 {
			end = len(after)
		}
		if end > 0 {
			return same(shareOfNumbers(prediction, after[:end])), nil
		}
		rest = after
	}
}

// shareOfNumbers is the share of numbers in the prediction that equal want, as
// strings.
func shareOfNumbers(prediction, want string) float64 {
	numbers := pytext.Digits(prediction)
	if len(numbers) == 0 {
		return 0
	}
	right := 0
	for _, n := range numbers {
		if n == want {
			right++
		}
	}
	return float64(right) / float64(len(numbers))
}
