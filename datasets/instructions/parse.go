package instructions

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a teacher's reply may be instead of useful.
var (
	// ErrRefused is a reply that declines.
	ErrRefused = errors.New("the teacher refused")
	// ErrNoQuestions is a proposal without a numbered question.
	ErrNoQuestions = errors.New("the reply has no numbered question")
	// ErrCutOff is a reply that ended at the length limit.
	ErrCutOff = errors.New("the reply was cut off by the length limit")
	// ErrEmptyReply is a reply without text.
	ErrEmptyReply = errors.New("the reply is empty")
	// ErrMalformed is a reply that is none, however often it was asked for.
	ErrMalformed = errors.New("the reply is malformed")
	// ErrControl is a reply with control characters, such as NUL, which no training text may hold.
	ErrControl = errors.New("the reply holds control characters")
	// ErrUnanswered is a request that the teacher fails to answer, again and again, while it answers others.
	ErrUnanswered = errors.New("the teacher does not answer this request")
	// ErrRejected is a request that the teacher cannot be asked at all: it is too long, or against its rules. Asking again would not help.
	ErrRejected = errors.New("the request was rejected")
)

// Ways in which models number questions. Each begins with decoration; a label or a separator must show that the number is one of a list.
var (
	decoration = `^[\s>*#_|-]*`
	label      = `(?:(?i:q|question|task)\s*#?\s*|#|问题\s*|任务\s*|题目?\s*)`
	separator  = `(?:[)\]）】][:：.．、]?|[:：.．、]|\*\*\s*[:：.．、]?|\s+[-–—]\s|\s*\|)`
	numeral    = `([0-9０-９]{1,2}|[一二三四五六七八九十]{1,3})`
	// 1: 1. 1) (1) [1] 1、 １： 1 - | 1 | Q1: Question #1: 问题一： **1.** - 1.
	numbered = regexp.MustCompile(decoration + label + `?[(\[（【]?\s*` + numeral + `\s*` + separator + `[*_]*\s*(.*)$`)
	// Question 1, alone on its line
	heading = regexp.MustCompile(decoration + label + numeral + `[\s*_]*()$`)
	// 第1个问题： 第一题：
	ordinal = regexp.MustCompile(decoration + `第\s*` + numeral + `\s*(?:个问题|个任务|题|问)[\s*_]*[:：.．、]?[\s*_]*(.*)$`)
	// ① ② ③
	circled = regexp.MustCompile(decoration + `([①-⑳])[:：.．、]?[\s*_]*(.*)$`)
	// (a) a)
	lettered = regexp.MustCompile(decoration + `[(（]?([a-tA-T])[)）][*_]*\s+(.*)$`)
)

// styles are tried in turn; the first that finds a 1 is that of the whole reply.
var styles = []*regexp.Regexp{numbered, heading, ordinal, circled, lettered}

// Lines that are no part of a question.
var (
	answerLine = regexp.MustCompile(`^[\s>*#_-]*(?:(?i:a[0-9]{1,2}\s*[:：.)]|a\s*[:：]|answers?\s*[0-9]{0,2}\s*[:：.)])|答案?\s*[0-9一二三四五六七八九十]{0,2}\s*[:：])`)
	farewell   = regexp.MustCompile(`(?i)^[\s*_]*(?:let me know|i hope|hope (?:this|these)|feel free|please let|if you (?:need|want|would|have)|these (?:questions|tasks)|(?:note|notes)\b|would you like|happy to|希望|如果您|如需|请告诉|以上)`)
	tagged     = regexp.MustCompile(`(?is)<(?:question|task)\b[^>]*>(.*?)</(?:question|task)>`)
	escaped    = regexp.MustCompile(`(?m)^(\s*[0-9]{1,2})\\([.)])`)
	bullet     = regexp.MustCompile(`^\s*[-*•]\s+(.*[?？])\W*$`)
)

// numberOf reads the number at the start of a line in one style.
func numberOf(style *regexp.Regexp, line string) (n int, rest string, ok bool) {
	m := style.FindStringSubmatchIndex(line)
	if m == nil {
		return 0, "", false
	}
	digits, rest := line[m[2]:m[3]], line[m[4]:m[5]]
	// 3.5 million and 10:30 are no numbers of questions.
	if before := line[:m[4]]; rest != "" && rest[0] >= '0' && rest[0] <= '9' && strings.ContainsAny(before[len(before)-1:], ".:") {
		return 0, "", false
	}
	return value(digits), rest, true
}

// value is what Latin, wide, circled or Chinese digits, or a letter, count; 0 for what is no number.
func value(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			n = 10*n + int(r-'0')
		case r >= '０' && r <= '９':
			n = 10*n + int(r-'０')
		case r >= '①' && r <= '⑳':
			n = int(r-'①') + 1
		case r >= 'a' && r <= 't':
			n = int(r-'a') + 1
		case r >= 'A' && r <= 'T':
			n = int(r-'A') + 1
		case r == '十':
			n = 10 * max(n, 1)
		default:
			n += strings.IndexRune("一二三四五六七八九", r)/len("一") + 1
		}
	}
	return n
}

// refusal matches the opening of a reply that declines.
var refusal = regexp.MustCompile(`(?i)^[\s"'*]*(?:i['’]?m (?:very |really )?sorry|i am (?:very |really )?sorry|sorry,? (?:but )?i |i apologi[sz]e|i (?:can(?:no|['’])t|cannot|am unable|am not able|won['’]t|must decline)|as an ai\b|unfortunately,? i (?:can|am)|很?抱歉|对不起|我(?:无法|不能|没办法)|作为(?:一个|一名)?(?:人工智能|AI))`)

// Refused reports whether text opens like a refusal.
func Refused(text string) bool { return refusal.MatchString(text) }

// StripReasoning removes the thinking that reasoning models put before a reply, in <think> and like tags; had tells that there was some.
// Thinking that does not end is ErrCutOff.
func StripReasoning(text string) (rest string, had bool, err error) {
	for _, tag := range []string{"think", "thinking", "thought", "reasoning"} {
		begins := strings.HasPrefix(strings.TrimSpace(text), "<"+tag+">")
		// Chat templates may begin the thinking in the prompt: then only its end is in the reply.
		_, after, ends := strings.Cut(text, "</"+tag+">")
		switch {
		case ends:
			return strings.TrimSpace(after), true, nil
		case begins:
			return "", true, ErrCutOff
		}
	}
	return text, false, nil
}

// ParseQuestions returns the numbered questions of a proposal, without preamble, closing words, markup, answers and
// repetitions. A question may go over several lines; a blank line ends it. Tagged questions and JSON lists are read as well. It fails with
// ErrRefused, also where a refusal is followed by a list of something else, or ErrNoQuestions.
func ParseQuestions(text string) ([]string, error) {
	if Refused(text) {
		return nil, ErrRefused
	}
	questions := jsonQuestions(text)
	if questions == nil {
		for _, m := range tagged.FindAllStringSubmatch(text, -1) {
			q := strings.Join(strings.Fields(m[1]), " ")
			if _, rest, ok := numberOf(numbered, q); ok {
				q = rest
			}
			questions = append(questions, q)
		}
	}
	if questions == nil {
		questions = listedQuestions(escaped.ReplaceAllString(text, "$1$2"))
	}
	kept, refused := questions[:0], false
	for _, q := range questions {
		q = unmark(q)
		if Refused(q) {
			refused = true
			continue
		}
		if q != "" && !slices.Contains(kept, q) {
			kept = append(kept, q)
		}
	}
	switch {
	case len(kept) > 0:
		return kept, nil
	case refused:
		return nil, ErrRefused
	}
	return nil, ErrNoQuestions
}

// listedQuestions reads the lines of a list.
func listedQuestions(text string) []string {
	lines := strings.Split(text, "\n")
	style := styleOf(lines)
	if style == nil {
		return bulleted(lines)
	}
	var questions []string
	var numbers []int
	last, open := 0, false
	for _, raw := range lines {
		line := strings.TrimSpace(raw)
		of := style
		n, rest, ok := numberOf(of, line)
		for _, other := range []*regexp.Regexp{numbered, heading, ordinal} {
			if !ok && style != lettered && style != circled {
				n, rest, ok = numberOf(other, line)
			}
		}
		// A number that does not go on with the list belongs to the text. Some number every line 1.
		if ok && (n > last && n <= last+3 || n == 1 && last == 1) {
			questions, numbers = append(questions, strings.TrimRight(rest, "| ")), append(numbers, n)
			last, open = n, true
			continue
		}
		switch {
		case line == "":
			// Some models leave a blank line between number and question.
			open = open && questions[len(questions)-1] == ""
		case strings.HasPrefix(line, "```"), answerLine.MatchString(line):
			open = false
		case open:
			current := &questions[len(questions)-1]
			done := strings.HasSuffix(strings.TrimRight(*current, "*_\"”"), "?") || strings.HasSuffix(strings.TrimRight(*current, "*_\"”"), "？")
			indented := raw != strings.TrimLeft(raw, " \t") || strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "* ")
			if *current != "" && (farewell.MatchString(line) || done && !indented) {
				open = false
				continue
			}
			*current = strings.TrimSpace(*current + " " + line)
		}
	}
	return inline(questions, numbers)
}

// styleOf finds how a list is numbered: by its first 1.
func styleOf(lines []string) *regexp.Regexp {
	for _, line := range lines {
		for _, style := range styles {
			if n, _, ok := numberOf(style, strings.TrimSpace(line)); ok && n == 1 {
				return style
			}
		}
	}
	return nil
}

// bulleted reads a list without numbers: two questions at least, or it may be anything.
func bulleted(lines []string) (questions []string) {
	for _, line := range lines {
		if m := bullet.FindStringSubmatch(line); m != nil {
			questions = append(questions, m[1])
		}
	}
	if len(questions) < 2 {
		return nil
	}
	return questions
}

// inline parts questions that stand on one line, numbered: where a sentence ends and the next number follows, which no line begins with.
func inline(questions []string, numbers []int) (parted []string) {
	for i, q := range questions {
		n := numbers[i]
		for !slices.Contains(numbers, n+1) {
			next := regexp.MustCompile(`[?？。.!！]["”*]*\s*[(（]?` + strconv.Itoa(n+1) + `[.:：、)）．]\s*([^\s0-9])`)
			at := next.FindStringSubmatchIndex(q)
			if at == nil {
				break
			}
			_, size := utf8.DecodeRuneInString(q[at[0]:])
			parted, q = append(parted, q[:at[0]+size]), q[at[2]:]
			n++
		}
		parted = append(parted, q)
	}
	return parted
}

// jsonQuestions reads ["…"], [{"question": "…"}], {"questions": […]} and {"1": "…"}; nil for anything else.
func jsonQuestions(text string) []string {
	text = strings.TrimSpace(text)
	if first := strings.IndexAny(text, "[{"); first >= 0 && strings.Contains(text[:first], "```") {
		text = text[first:]
		if end := strings.Index(text, "```"); end >= 0 {
			text = text[:end]
		}
	}
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "{") {
		return nil
	}
	var list []json.RawMessage
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &list) != nil {
		if json.Unmarshal([]byte(text), &object) != nil {
			return nil
		}
		for _, name := range []string{"questions", "tasks"} {
			if raw, ok := object[name]; ok && json.Unmarshal(raw, &list) != nil {
				return nil
			}
		}
		for n := 1; len(list) < n; n++ {
			raw, ok := object[strconv.Itoa(n)]
			if !ok {
				break
			}
			list = append(list, raw)
		}
	}
	var questions []string
	for _, raw := range list {
		var q string
		var in struct{ Question, Task string }
		if json.Unmarshal(raw, &q) != nil {
			if json.Unmarshal(raw, &in) != nil {
				return nil
			}
			q = in.Question + in.Task
		}
		q = strings.Join(strings.Fields(q), " ")
		if _, rest, ok := numberOf(numbered, q); ok {
			q = rest
		}
		questions = append(questions, q)
	}
	return questions
}

// unmark removes emphasis around a whole question, and its quotes.
func unmark(q string) string {
	q = strings.TrimSpace(q)
	for _, mark := range []string{"**", "__", "*", "`"} {
		if len(q) > 2*len(mark) && strings.HasPrefix(q, mark) && strings.HasSuffix(q, mark) && strings.Count(q, mark) == 2 {
			q = strings.TrimSpace(q[len(mark) : len(q)-len(mark)])
		}
	}
	if strings.HasSuffix(q, "**") && strings.Count(q, "**") == 1 {
		q = strings.TrimSpace(strings.TrimSuffix(q, "**"))
	}
	for _, pair := range [][2]string{{`"`, `"`}, {"“", "”"}, {"「", "」"}} {
		if len(q) > len(pair[0])+len(pair[1]) && strings.HasPrefix(q, pair[0]) && strings.HasSuffix(q, pair[1]) {
			if inner := q[len(pair[0]) : len(q)-len(pair[1])]; !strings.Contains(inner, pair[0]) {
				q = strings.TrimSpace(inner)
			}
		}
	}
	return q
}
