package reports

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// drawnCells are cells of one method over seeds: what all methods share of a sample, a seed's own effect, noise, and the method's effect.
func drawnCells(rng *rand.Rand, method string, seeds int, shared []float64, seedSD, effect float64) []CellData {
	var cells []CellData
	for seed := range seeds {
		own := seedSD * rng.NormFloat64()
		set := ScoreSet{}
		for i, s := range shared {
			set.Samples = append(set.Samples, Sample{ID: fmt.Sprint(i), Value: s + own + effect + 0.3*rng.NormFloat64()})
		}
		cells = append(cells, CellData{Method: method, Seed: seed, Scores: map[string]ScoreSet{"score": set}})
	}
	return cells
}

func TestIntervalsOfDifferencesCoverAndBestMarksAreRarelyWrong(t *testing.T) {
	const studies, samples, effect = 400, 40, 0.25
	for name, tt := range map[string]struct {
		seeds  int
		seedSD float64
	}{
		"one seed, which has no effect of its own": {1, 0},
		"three seeds that differ":                  {3, 0.2},
		"five seeds that differ":                   {5, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(11, uint64(tt.seeds)))
			covered, alarms, marks := 0, 0, 0
			for range studies {
				shared := make([]float64, samples)
				for i := range shared {
					shared[i] = 2 * rng.NormFloat64()
				}
				a := drawnCells(rng, "a", tt.seeds, shared, tt.seedSD, effect)
				b := drawnCells(rng, "b", tt.seeds, shared, tt.seedSD, 0)
				same := drawnCells(rng, "c", tt.seeds, shared, tt.seedSD, 0)
				if c := contrast(Metric{Name: "score"}, a, b, 1, 200); c.Low <= effect && effect <= c.High {
					covered++
				}
				if contrast(Metric{Name: "score"}, b, same, 1, 200).Differs() {
					alarms++
				}
				s := &Study{Resamples: 200, Cells: append(append([]CellData{}, b...), same...)}
				table := &Table{Columns: []Column{{Text: true}, {Better: Higher}}}
				for _, m := range []string{"b", "c"} {
					table.Rows = append(table.Rows, Row{Cells: []Cell{Label(m), s.cell(Metric{Name: "score"}, s.of(m))}})
				}
				s.markBest(table, 1, Metric{Name: "score"}, map[string]int{"b": 0, "c": 1}, map[string][]CellData{"b": b, "c": same})
				if table.Rows[0].Cells[1].Best || table.Rows[1].Cells[1].Best {
					marks++
				}
			}
			// Four standard errors below 95 %, and above 5 %.
			slack := 4 * math.Sqrt(0.05*0.95/studies)
			if share := float64(covered) / studies; share < 0.95-slack {
				t.Errorf("%.1f %% of the intervals cover the effect", 100*share)
			}
			if share := float64(alarms) / studies; share > 0.05+slack {
				t.Errorf("%.1f %% of comparisons of equals find a difference", 100*share)
			}
			if marks > alarms {
				t.Errorf("%d of %d tables of equals have a best value, %d comparisons differ", marks, studies, alarms)
			}
			t.Logf("covered %.1f %%, false alarms %.1f %%, best marks %.1f %%", 100*float64(covered)/studies, 100*float64(alarms)/studies, 100*float64(marks)/studies)
		})
	}
}

// The two turns of a question are rated alike: as samples of their own they would promise too much.
func TestIntervalsCoverWhereTurnsShareTheirQuestion(t *testing.T) {
	const studies, questions = 400, 30
	covered, asSingles := 0, 0
	rng := rand.New(rand.NewPCG(12, 1))
	for range studies {
		var turns, singles ScoreSet
		for q := range questions {
			shared := 1.5 * rng.NormFloat64()
			for turn := range 2 {
				x := Sample{ID: fmt.Sprintf("%d/%d", q, turn), Value: 5 + shared + rng.NormFloat64()}
				singles.Samples = append(singles.Samples, x)
				x.Cluster = fmt.Sprint(q)
				turns.Samples = append(turns.Samples, x)
			}
		}
		s := &Study{Resamples: 200}
		covers := func(set ScoreSet) int {
			c := s.cell(Metric{Name: "score"}, []CellData{{Scores: map[string]ScoreSet{"score": set}}})
			if c.N != 2*questions {
				t.Fatalf("%d samples", c.N)
			}
			if c.Low <= 5 && 5 <= c.High {
				return 1
			}
			return 0
		}
		covered += covers(turns)
		asSingles += covers(singles)
	}
	slack := 4 * math.Sqrt(0.05*0.95/studies)
	if share := float64(covered) / studies; share < 0.95-slack {
		t.Errorf("%.1f %% of the intervals cover the mean", 100*share)
	}
	if asSingles >= covered {
		t.Errorf("drawing turns apart covers as often, %d of %d: the test shows nothing", asSingles, covered)
	}
	t.Logf("covered %.1f %%, drawn apart %.1f %%", 100*float64(covered)/studies, 100*float64(asSingles)/studies)
}
