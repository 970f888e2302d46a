// Package reports turns stored results into tables, figures and one report. It is
// pure: values in, bytes out, no files, no clock, no network, so the same store
// gives the same bytes on any machine at any time.
//
// Order: a [Study] (what one study's manifests say) → [Table] and [Figure] (built by
// one function each) → bytes in a [Format], or one self-contained HTML page ([RenderReport]).
//
// Units: losses are nats a token, scores are in the benchmark's own unit (percent for
// LongBench, 1–10 for judges), lengths are tokens, times are seconds unless a column
// says hours. Intervals are 95 % bootstrap intervals.
//
// A number that was not measured is never a zero: its cell is [Cell.Incomplete] and
// prints "–", or its value with the number of samples it has. What is tiny, synthetic,
// simulated or judged offline carries a footnote.
//
// Errors name the table, row and column, or the file's line, and say what to do.
//
// Source of the published numbers: LongAlign, arXiv 2401.18058 (package paper).
package reports
