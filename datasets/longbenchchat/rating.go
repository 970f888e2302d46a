package longbenchchat

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Ratings of LongBench-Chat are from MinRating to MaxRating.
const (
	MinRating = 1
	MaxRating = 10
)

// Scale is the range of ratings a judge may give.
type Scale struct{ Min, Max float64 }

// Chat is the scale of LongBench-Chat.
var Chat = Scale{MinRating, MaxRating}

// RatingError says why a judge's reply gives no rating. It is worth another try.
type RatingError struct {
	Reason string
	// Reply is the end of what the judge said.
	Reply string
}

func (e *RatingError) Error() string {
	return fmt.Sprintf("the judge gave no rating: %s; its reply ends %q", e.Reason, e.Reply)
}

// Parse reads the rating from a judge's reply: the number in its last [[…]], as the
// reference does ("[[8]]", "[[Rating: 7.5]]", "[[8/10]]" is 8). Unlike there, a rating
// outside the scale or none at all is an error, and digits of other scripts count too
// (［［８］］). Thinking before </think> is not part of the reply.
func (s Scale) Parse(reply string) (float64, error) {
	fail := func(format string, args ...any) (float64, error) {
		tail := []rune(strings.TrimSpace(reply))
		return 0, &RatingError{Reason: fmt.Sprintf(format, args...), Reply: string(tail[max(0, len(tail)-80):])}
	}
	text := reply
	if _, after, ok := strings.Cut(text, "</think>"); ok {
		text = after
	}
	text = narrow(text)
	marker, ok := lastMarker(text)
	if !ok {
		return fail("no [[rating]]")
	}
	digits := number.FindString(marker)
	if digits == "" {
		return fail("no number in [[%s]]", marker)
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || v < s.Min || v > s.Max {
		return fail("[[%s]] is not between %g and %g", marker, s.Min, s.Max)
	}
	return v, nil
}

// narrow maps full-width brackets, digits and the like to ASCII.
func narrow(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case '０' <= r && r <= '９':
			return r - '０' + '0'
		case r == '［':
			return '['
		case r == '］':
			return ']'
		case r == '．':
			return '.'
		case r == '－':
			return '-'
		}
		return r
	}, s)
}

// lastMarker is the last match of \[\[([^\]]+)\]\].
func lastMarker(s string) (inside string, ok bool) {
	for {
		open := strings.Index(s, "[[")
		if open < 0 {
			return inside, ok
		}
		s = s[open+2:]
		end := strings.IndexByte(s, ']')
		if end > 0 && strings.HasPrefix(s[end:], "]]") {
			inside, ok, s = s[:end], true, s[end+2:]
		}
	}
}

// number matches the first number of a marker. The minus sign is kept, so that a
// negative rating is out of range and not taken for its absolute value.
var number = regexp.MustCompile(`-?[0-9]+(?:\.[0-9]+)?`)
