package thudm

// Loaded is a pack as the published data loader hands it to the trainer.
type Loaded struct {
	InputIDs []int32
	Labels   []int32
	Weights  []float32
	// Ends are the sequence boundaries: 0, each sequence's end, and the length of the pack.
	Ends []int32
}

// Load gives pack number k of a data directory as the loader does: the first CutPacks packs are cut to
// CutLength tokens, in the middle of a sequence or not, and their weights are doubled, whatever was cut off. It means
// to save memory in the first steps, and repeats in every epoch.
func Load(k int, p Loaded) Loaded {
	if k >= CutPacks {
		return p
	}
	n := min(CutLength, len(p.InputIDs))
	cut := Loaded{InputIDs: p.InputIDs[:n], Labels: p.Labels[:n], Weights: make([]float32, n)}
	for t, w := range p.Weights[:n] {
		cut.Weights[t] = 2 * w
	}
	for _, end := range p.Ends {
		if end < CutLength {
			cut.Ends = append(cut.Ends, end)
		}
	}
	cut.Ends = append(cut.Ends, CutLength)
	return cut
}

// Suite returns how many short and long instances the published code trains on when it is asked for a suite of
// long instances (0k, 5k, 10k): all of them, for the choice is overwritten before it is used.
func Suite(_ string, short, long int) (trainedShort, trainedLong int) { return short, long }
