package longbench

import "fmt"

// Correction names a defect of the reference scorer that makes the corrected
// score of a sample differ from the compatible one.
type Correction string

// The corrections.
const (
	// RecursionLimit: the reference walks the longest common subsequence by
	// recursion. Past Python's limit of 1,000 frames the exception is caught and
	// the sample scores 0. Corrected: the same ROUGE-L without the limit.
	RecursionLimit Correction = "recursion-limit"
	// SkippedClass: class names that are part of the right one are removed from the
	// list being iterated over, so that every name after a removed one escapes the
	// check, and the classes of the file's last row are used for all rows.
	// Corrected: every name is checked, against the row's own classes.
	SkippedClass Correction = "skipped-class"
	// Autojunk: the edit similarity comes from Python's difflib, which in lines of
	// 200 characters or more ignores all frequent characters, so that lines that are
	// nearly equal can score near 0. Corrected: no character is ignored.
	Autojunk Correction = "difflib-autojunk"
	// MarkedLine: code lines with `, # or // are taken for prose or comments and
	// skipped, even where the right line holds that very mark (a #define, a URL),
	// so that a perfect completion scores on the line after it. Corrected: a mark
	// that the right line holds disqualifies no line.
	MarkedLine Correction = "marked-code-line"
	// DuplicateRow: the reference appends to a file that exists, so that a re-run
	// counts samples twice. Corrected: of rows with one _id the first counts.
	DuplicateRow Correction = "duplicate-row"
)

// Corrections lists them all.
func Corrections() []Correction {
	return []Correction{RecursionLimit, SkippedClass, Autojunk, MarkedLine, DuplicateRow}
}

// Explain says what the correction changes, in one sentence.
func (c Correction) Explain() string {
	switch c {
	case RecursionLimit:
		return "ROUGE-L paths beyond Python's recursion limit score 0 in the original"
	case SkippedClass:
		return "the original removes class names from the list it iterates over, and uses the last row's classes for all rows"
	case Autojunk:
		return "difflib ignores frequent characters in code lines of 200 characters or more"
	case MarkedLine:
		return "the original skips right code lines that hold `, # or //"
	case DuplicateRow:
		return "rows with the same _id count several times in the original"
	}
	return fmt.Sprintf("unknown correction %q", string(c))
}
