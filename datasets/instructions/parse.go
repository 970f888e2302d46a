package instructions

import (
	"errors"
	"regexp"
	"slices"
	"strings"
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
	// ErrUnanswered is a request that the teacher fails to answer, again and again, while it answers others.
	ErrUnanswered = errors.New("the teacher does not answer this request")
	// ErrRejected is a request that the teacher cannot be asked at all: it is too long, or against its rules. Asking again would not help.
	ErrRejected = errors.New("the request was rejected")
)

// numbered matches the start of a question, in the ways models write numbers:
// 1: 1. 1) (1) [1] 1、 １： Q1: Question 1: 问题1： **1.** - 1.
var numbered = regexp.MustCompile(`^[\s>*#_-]*(?:(?i:q|question|task)\s*|问题\s*|任务\s*)?[(\[（【]?\s*([0-9０-９]{1,2})\s*(?:[)\]）】][:：.．、]?|[:：.．、]|\*\*\s*[:：.．、]?)[*_]*\s*(.*)$`)

// refusal matches the opening of a reply that declines.
var refusal = regexp.MustCompile(`(?i)^[\s"'*]*(?:i['’]?m (?:very |really )?sorry|i am (?:very |really )?sorry|sorry,? (?:but )?i |i apologi[sz]e|i (?:can(?:no|['’])t|cannot|am unable|am not able|won['’]t|must decline)|as an ai\b|unfortunately,? i (?:can|am)|很?抱歉|对不起|我(?:无法|不能|没办法)|作为(?:一个|一名)?(?:人工智能|AI))`)

// Refused reports whether text opens like a refusal.
func Refused(text string) bool { return refusal.MatchString(text) }

// ParseQuestions returns the numbered questions of a proposal, without preamble, closing words, markup and
// repetitions. A question may go over several lines; a blank line ends it. It fails with ErrRefused or ErrNoQuestions.
func ParseQuestions(text string) ([]string, error) {
	var questions []string
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := numbered.FindStringSubmatch(line); m != nil {
			questions = append(questions, m[2])
			open = true
			continue
		}
		switch {
		case line == "":
			// Some models leave a blank line between number and question.
			open = open && questions[len(questions)-1] == ""
		case open:
			last := &questions[len(questions)-1]
			*last = strings.TrimSpace(*last + " " + line)
		}
	}
	kept := questions[:0]
	for _, q := range questions {
		if q = unmark(q); q != "" && !slices.Contains(kept, q) {
			kept = append(kept, q)
		}
	}
	switch {
	case len(kept) > 0:
		return kept, nil
	case Refused(text):
		return nil, ErrRefused
	}
	return nil, ErrNoQuestions
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
