package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/documents"
	"github.com/longalign/longalign-go/datasets/instructions"
)

// mixFiles hashes the files of each mixed source: the tokens' key is what they are, not where they lie.
func mixFiles(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[datasets.TokensStageParams](raw)
	if err != nil || len(p.Mix) == 0 {
		return nil, err
	}
	digests := map[string]string{}
	for i, s := range p.Mix {
		src, names, err := conversationFiles(ctx, s)
		if err != nil {
			return nil, err
		}
		all := sha256.New()
		for _, name := range names {
			f, err := src.FS.Open(name)
			if err != nil {
				return nil, mixError(s, err)
			}
			_, err = io.Copy(all, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return nil, mixError(s, &documents.ReadError{File: name, Err: err})
			}
		}
		digests[fmt.Sprintf("mix %d", i)] = "sha256:" + hex.EncodeToString(all.Sum(nil))
	}
	return digests, nil
}

func mixError(s datasets.MixSource, err error) error {
	return inputError(fmt.Errorf("tokens.mix %s: %w", s.Name, err))
}

// conversationFiles finds the files of a source in the order of their names.
func conversationFiles(ctx context.Context, s datasets.MixSource) (documents.Source, []string, error) {
	if s.Path == "" {
		return documents.Source{}, nil, badConfig("tokens.mix: a source needs a path")
	}
	src, err := openSource(ctx, datasets.DocumentSource{Name: s.Name, Path: s.Path})
	if err != nil {
		return src, nil, err
	}
	var names []string
	err = fs.WalkDir(src.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		bare := strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
		if len(src.Include) > 0 { // a single file is meant, whatever its name
			if ok, err := path.Match(src.Include[0], name); err != nil || !ok {
				return err
			}
		} else if !slices.Contains([]string{".json", ".jsonl", ".ndjson"}, path.Ext(bare)) {
			return nil
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return src, nil, mixError(s, err)
	}
	if len(names) == 0 {
		return src, nil, badData("tokens.mix %s: there is no .json or .jsonl file in %s", s.Name, s.Path)
	}
	return src, names, nil
}

// conversations streams a source's conversations. bad is told of what cannot be read and may end it.
func conversations(ctx context.Context, s datasets.MixSource, bad func(error) error) iter.Seq2[datasets.Instance, error] {
	return func(yield func(datasets.Instance, error) bool) {
		src, names, err := conversationFiles(ctx, s)
		if err != nil {
			yield(datasets.Instance{}, err)
			return
		}
		for _, name := range names {
			r, err := documents.Open(src.FS, name)
			if err != nil {
				yield(datasets.Instance{}, mixError(s, err))
				return
			}
			for i, err := range chat.Read(r, name, s.Limit()) {
				var line *chat.LineError
				if errors.As(err, new(*documents.ReadError)) {
					err = mixError(s, err)
				} else if errors.As(err, &line) {
					if err = bad(line); err == nil {
						continue
					}
				}
				if ctx.Err() != nil {
					err = ctx.Err()
				}
				if !yield(i, err) || err != nil {
					_ = r.Close()
					return
				}
			}
			_ = r.Close()
		}
	}
}

// maxBadPlaces bounds the places a source's warnings name; the count has them all.
const maxBadPlaces = 20

// drawnFrom begins the name under which a source's conversations are counted.
const drawnFrom = "from "

// portion is one source of training conversations and which of them are drawn.
type portion struct {
	name  string
	all   iter.Seq2[datasets.Instance, error]
	drawn []int // numbers, ascending; nil for all
	size  int
}

// portions says what is trained on: the teacher's instructions, then each mixed source, and what is drawn of each.
func (j *job) portions(ctx context.Context, p datasets.TokensParams) ([]portion, error) {
	var parts []portion
	if !p.OnlyMix {
		parts = append(parts, portion{name: "instructions", all: j.instances(ctx, "instructions", trainFile)})
	}
	unreadable, places := map[string]int64{}, []string{}
	for _, s := range p.Mix {
		parts = append(parts, portion{name: s.Name, all: conversations(ctx, s, func(err error) error {
			if s.BadInput != datasets.BadInputSkip {
				return badData("tokens.mix: %w; mend the file, or set bad_input: skip", err)
			}
			if unreadable[s.Name]++; unreadable[s.Name] <= maxBadPlaces {
				places = append(places, fmt.Sprintf("tokens.mix %s: %v", s.Name, err))
			}
			return nil
		})})
	}
	if len(p.Mix) == 0 && p.Instances == 0 {
		return parts, nil // nothing is drawn, so nothing needs to be counted
	}
	var sizes []int
	for i := range parts {
		unpaired := int64(0)
		for instance, err := range parts[i].all {
			if err != nil {
				return nil, err
			}
			parts[i].size++
			j.moves.Add(1) // counting a large file is no standstill
			unpaired += int64(instance.Unpaired)
		}
		if unpaired > 0 {
			j.count("messages without a partner left out: "+parts[i].name, unpaired)
		}
		sizes = append(sizes, parts[i].size)
	}
	for name, n := range unreadable {
		j.count("unreadable: "+name, n)
	}
	j.manifest.Warnings = append(j.manifest.Warnings, places...)
	draws, err := draw(p, sizes)
	if err != nil {
		return nil, badConfig("%w", err)
	}
	for i := range parts {
		parts[i].drawn = draws[i]
		if len(p.Mix) > 0 {
			n := parts[i].size
			if draws[i] != nil {
				n = len(draws[i])
			}
			j.count(drawnFrom+parts[i].name, int64(n))
		}
	}
	return parts, nil
}

// draw returns the numbers to take of each portion, nil for all of it.
func draw(p datasets.TokensParams, sizes []int) ([][]int, error) {
	if p.MixTotal > 0 {
		var weights []float64
		if !p.OnlyMix {
			weights = append(weights, p.Weight)
		}
		for _, s := range p.Mix {
			weights = append(weights, s.Weight)
		}
		draws, err := instructions.Mixture(sizes, weights, p.MixTotal, p.Seed)
		if err != nil {
			return nil, fmt.Errorf("tokens.mix_total: %w; lower it, or the part's weight", err)
		}
		for i := range draws {
			if draws[i] == nil {
				draws[i] = []int{} // nil would be all
			}
		}
		return draws, nil
	}
	var wanted []int
	if !p.OnlyMix {
		wanted = append(wanted, p.Instances)
	}
	for _, s := range p.Mix {
		wanted = append(wanted, s.Instances)
	}
	draws := make([][]int, len(sizes))
	for i, n := range wanted {
		if n == 0 {
			continue
		}
		if n > sizes[i] {
			return nil, fmt.Errorf("tokens.instances: %d are asked for, there are %d; lower it, or take more documents", n, sizes[i])
		}
		// Each source has a draw of its own; the instructions' is that of the suites.
		own := i
		if p.OnlyMix {
			own++
		}
		var err error
		if draws[i], err = instructions.Prefix(sizes[i], n, p.Seed+uint64(own)); err != nil {
			return nil, fmt.Errorf("tokens.instances: %w", err)
		}
	}
	return draws, nil
}

// drawnInstructions returns the numbers of the instructions that a tokens stage took, nil for all. counts are its manifest's.
func (j *job) drawnInstructions(ctx context.Context, p datasets.TokensParams, counts map[string]int64) (map[int]bool, error) {
	take := p.Instances
	if len(p.Mix) > 0 {
		take = int(counts[drawnFrom+"instructions"])
	} else if take == 0 {
		return nil, nil
	}
	drawn := map[int]bool{}
	if p.OnlyMix || take == 0 {
		return drawn, nil
	}
	n := 0
	for _, err := range j.instances(ctx, "instructions", trainFile) {
		if err != nil {
			return nil, err
		}
		n++
	}
	// Portions by number and by weight both are prefixes of one order.
	numbers, err := instructions.Prefix(n, take, p.Seed)
	if err != nil {
		return nil, badData("tokens: %w", err)
	}
	for _, i := range numbers {
		drawn[i] = true
	}
	return drawn, nil
}

// training streams the conversations to train on.
func training(parts []portion) iter.Seq2[datasets.Instance, error] {
	return func(yield func(datasets.Instance, error) bool) {
		for _, part := range parts {
			n, next := -1, 0
			for i, err := range part.all {
				n++
				if err == nil && part.drawn != nil {
					if next == len(part.drawn) {
						break
					}
					if part.drawn[next] != n {
						continue
					}
					next++
				}
				if !yield(i, err) {
					return
				}
			}
		}
	}
}
