package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// newTokenizeCommand encodes or decodes JSON lines with a model's own tokenizer.
func newTokenizeCommand() *cobra.Command {
	var (
		dir             string
		special, decode bool
	)
	cmd := &cobra.Command{
		Use:   "tokenize --tokenizer DIR",
		Short: "Turn texts into token IDs with a model's tokenizer, or back",
		Long: `Tokenize reads JSON lines from standard input and writes one line for each, in order; blank
lines are passed over:

  {"text":"…"}  →  {"ids":[…]}         and with --decode
  {"ids":[…]}   →  {"text":"…"}

DIR holds tokenizer.json or tokenizer.model, as a Hugging Face model directory does. Special
tokens written out in a text become their IDs. --special adds those the tokenizer puts
around a text (such as BOS); with --decode it keeps special tokens in the text.`,
		Example: `  starter tokenize --tokenizer models/Llama-3-8B < texts.jsonl > ids.jsonl
  starter tokenize --tokenizer models/Llama-3-8B --decode < ids.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tok, err := tokenizer.Load(dir)
			if err != nil {
				return fmt.Errorf("tokenize: %w", err)
			}
			line := func(in []byte) ([]byte, int, error) { return encodeLine(tok, in, special) }
			if decode {
				line = func(in []byte) ([]byte, int, error) { return decodeLine(tok, in, !special) }
			}
			start := time.Now()
			count, err := mapLines(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), line)
			if err != nil {
				return fmt.Errorf("tokenize: %w", err)
			}
			seconds := time.Since(start).Seconds()
			fmt.Fprintf(cmd.ErrOrStderr(), "%d lines, %d tokens, %.1f MB in %.1f s (%.1f MB/s)\n",
				count.lines, count.tokens, float64(count.bytes)/1e6, seconds, float64(count.bytes)/1e6/max(seconds, 1e-9))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "tokenizer", "", "directory with tokenizer.json or tokenizer.model")
	f.BoolVar(&special, "special", false, "with the special tokens around a text")
	f.BoolVar(&decode, "decode", false, "turn IDs into texts")
	if err := cmd.MarkFlagRequired("tokenizer"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func encodeLine(tok *tokenizer.Tokenizer, in []byte, special bool) (out []byte, tokens int, err error) {
	if err := datasets.CheckJSONText(in); err != nil {
		return nil, 0, err
	}
	var line map[string]json.RawMessage // whose names, unlike a struct's, are compared letter by letter
	if err := json.Unmarshal(in, &line); err != nil {
		return nil, 0, datasets.ExplainJSON(err)
	}
	var text *string
	if raw, ok := line["text"]; ok {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, 0, fmt.Errorf(`"text" %w`, datasets.ExplainJSON(err))
		}
	}
	if text == nil {
		return nil, 0, errors.New(`no "text"; every line is an object {"text":"…"}`)
	}
	ids := tok.Encode(*text, special)
	out = make([]byte, 0, 8*len(ids)+16)
	out = append(out, `{"ids":[`...)
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(id), 10)
	}
	return append(out, "]}\n"...), len(ids), nil
}

func decodeLine(tok *tokenizer.Tokenizer, in []byte, skipSpecial bool) (out []byte, tokens int, err error) {
	var line struct {
		IDs []int32 `json:"ids"`
	}
	if err := json.Unmarshal(in, &line); err != nil {
		return nil, 0, datasets.ExplainJSON(err)
	}
	if line.IDs == nil {
		return nil, 0, errors.New(`no "ids"; with --decode every line is an object {"ids":[…]}`)
	}
	for _, id := range line.IDs {
		if tok.Token(id) == "" {
			return nil, 0, fmt.Errorf("token ID %d is not in the vocabulary of %d", id, tok.VocabSize())
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(struct {
		Text string `json:"text"`
	}{tok.Decode(line.IDs, skipSpecial)})
	return b.Bytes(), len(line.IDs), err
}

// lineCount is what mapLines went through.
type lineCount struct{ lines, tokens, bytes int }

// lineBatch is some lines that one core works on at a time; done receives their results.
type lineBatch struct {
	first int // line number of the first, from 1
	lines [][]byte
	done  chan batchResult
}

// batchResult is what was made of a batch's lines, up to the first that failed.
type batchResult struct {
	out []byte
	err error
}

// batchBytes bounds the input of a batch, unless a single line is longer.
const batchBytes = 1 << 18

// mapLines writes f of every line that is not blank, in order, working on all cores with a
// bounded number of lines in memory. An error tells the number of the first bad line; those before it are written.
func mapLines(ctx context.Context, r io.Reader, w io.Writer, f func([]byte) ([]byte, int, error)) (lineCount, error) {
	var count lineCount
	cores := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan lineBatch, cores)
	ordered := make(chan lineBatch, 2*cores)
	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		return readBatches(r, func(b lineBatch) error {
			for _, to := range []chan lineBatch{ordered, work} {
				select {
				case to <- b:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			for _, line := range b.lines {
				count.bytes += len(line)
			}
			count.lines += len(b.lines)
			return nil
		})
	})
	tokens := make([]int, cores)
	for core := range cores {
		g.Go(func() error {
			for b := range work {
				var made batchResult
				for i, line := range b.lines {
					if len(bytes.TrimSpace(line)) == 0 {
						continue
					}
					result, n, err := f(line)
					if err != nil {
						made.err = fmt.Errorf("line %d: %w", b.first+i, err)
						break
					}
					made.out = append(made.out, result...)
					tokens[core] += n
				}
				b.done <- made
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range ordered {
			select {
			case made := <-b.done:
				if _, err := w.Write(made.out); err != nil {
					return err
				}
				if made.err != nil {
					return made.err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	err := g.Wait()
	for _, n := range tokens {
		count.tokens += n
	}
	return count, err
}

func readBatches(r io.Reader, emit func(lineBatch) error) error {
	in := bufio.NewReaderSize(r, 1<<16)
	next := 1
	for eof := false; !eof; {
		b := lineBatch{first: next, done: make(chan batchResult, 1)}
		for size := 0; size < batchBytes && !eof; {
			line, err := in.ReadBytes('\n')
			if err != nil && err != io.EOF {
				return fmt.Errorf("line %d: %w", next, err)
			}
			eof = err == io.EOF
			if len(line) > 0 {
				b.lines = append(b.lines, line)
				size += len(line)
				next++
			}
		}
		if err := emit(b); err != nil {
			return err
		}
	}
	return nil
}
