package datasets

import "fmt"

// ParamError is a parameter whose value cannot be used. Field is its YAML name.
type ParamError struct{ Field, Reason string }

func (e *ParamError) Error() string { return e.Field + ": " + e.Reason }

func paramError(field, format string, args ...any) error {
	return &ParamError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// OverLengthError is a sequence longer than the maximum under ErrorOverLength.
type OverLengthError struct{ Sequence, Length, MaxLength int }

func (e *OverLengthError) Error() string {
	what := "it"
	if e.Sequence >= 0 {
		what = fmt.Sprintf("sequence %d", e.Sequence)
	}
	return fmt.Sprintf("%s has %d tokens, max_length is %d; raise it, or set over_length: truncate-right", what, e.Length, e.MaxLength)
}
