package longbenchchat

import (
	"math"

	"github.com/longalign/longalign-go/datasets/longbench"
)

// OfflineName labels every number that came from the offline judge: it measures
// overlap of words, not quality.
const OfflineName = "offline-rouge"

// Offline rates an answer on the scale by its ROUGE-L against the reference answer, for
// machines without a judge model: Min without common words, Max at ROUGE-L 0.5, which few
// free-form answers exceed, rounded to whole ratings. Chinese is compared by
// character.
func Offline(s Scale, reference, answer string) float64 {
	overlap := min(2*longbench.CharacterAwareRougeL(answer, reference), 1)
	return s.Min + math.RoundToEven(overlap*(s.Max-s.Min))
}
