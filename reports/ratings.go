package reports

// Ratings are the scores that people and judges gave to the same items (Table 1).
type Ratings struct {
	// Raters are the columns' names; Values[i][j] is what rater j gave item i, nil where
	// rater j did not rate it.
	Raters []string     `json:"raters"`
	Values [][]*float64 `json:"values"`
}
