package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// newGenerateCommand continues one prompt.
func newGenerateCommand() *cobra.Command {
	var (
		dir, prompt, promptFile, promptIDs, device, dtypeName string
		stops                                                 []string
		req                                                   llama.Request
	)
	cmd := &cobra.Command{
		Use:   "generate --model DIR (--prompt TEXT | --prompt-file FILE | --prompt-ids 1,2)",
		Short: "Continue a prompt",
		Long: `Generate prints {"ids":[…],"text":"…"}: the new tokens, and their text without special tokens.
Without --temperature it is greedy. The prompt is taken as it is, with the special tokens that
the tokenizer puts around a text but without a chat template. One that is longer than an argument may be (128 KiB
on Linux) is read from a file.`,
		Example: `  starter generate --model trained --prompt "Once upon a time" --max-new-tokens 64
  starter generate --model trained --prompt-file book.txt --max-new-tokens 256
  starter generate --model trained --prompt-ids 1,403 --temperature 0.8 --top-p 0.95 --seed 7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dtype, err := train.ParseDType(dtypeName)
			if err != nil {
				return usageError{fmt.Errorf("--dtype: %w", err)}
			}
			given := 0
			for _, value := range []string{prompt, promptFile, promptIDs} {
				if value != "" {
					given++
				}
			}
			if given != 1 {
				return usageError{errors.New("generate: give one of --prompt, --prompt-file and --prompt-ids")}
			}
			if promptFile != "" {
				if prompt, err = readPrompt(cmd.InOrStdin(), promptFile); err != nil {
					return err
				}
			}
			if slices.Contains(stops, "") {
				return usageError{errors.New("--stop: an empty text stands everywhere; name one")}
			}
			if !(req.TopP > 0 && req.TopP <= 1) {
				return usageError{fmt.Errorf("--top-p %g is not above 0 and at most 1", req.TopP)}
			}
			if req.MaxNewTokens < 1 {
				return usageError{fmt.Errorf("--max-new-tokens %d is not positive", req.MaxNewTokens)}
			}
			if !(req.Temperature >= 0) || math.IsInf(req.Temperature, 0) {
				return usageError{fmt.Errorf("--temperature %g is neither 0 (greedy) nor positive", req.Temperature)}
			}
			// IDs alone can be continued without a tokenizer; then there is no text.
			tok, tokErr := tokenizer.Load(dir)
			if tokErr != nil && (prompt != "" || len(stops) > 0) {
				return tokErr
			}
			if prompt != "" {
				req.Prompt = tok.Encode(prompt, true)
			} else if req.Prompt, err = parseIDs(promptIDs); err != nil {
				return usageError{err}
			}
			dev, err := devices.Open(cmd.Context(), device)
			if err != nil {
				return err
			}
			defer dev.Close()
			m, err := llama.Load(dir, dev, dtype)
			if err != nil {
				return err
			}
			defer m.Close()
			if len(stops) > 0 {
				req.Stop = func(ids []int32) bool {
					text := tok.Decode(ids, true)
					for _, s := range stops {
						if strings.Contains(text, s) {
							return true
						}
					}
					return false
				}
			}
			out, err := m.Generate(cmd.Context(), []llama.Request{req})
			if err != nil {
				return err
			}
			if n := out[0].TruncatedTokens; n > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "generate: %d tokens were cut out of the prompt's middle; %d and --max-new-tokens fill the context\n", n, len(req.Prompt)-n)
			}
			result := struct {
				IDs  []int32 `json:"ids"`
				Text string  `json:"text"`
			}{IDs: out[0].IDs}
			if tokErr != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "generate: no text:", tokErr)
			} else {
				result.Text = cutAt(tok.Decode(out[0].IDs, true), stops)
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetEscapeHTML(false)
			return enc.Encode(result)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "model", "", "model directory")
	f.StringVar(&prompt, "prompt", "", "text to continue")
	f.StringVar(&promptFile, "prompt-file", "", "file of the text to continue, - for standard input")
	f.StringVar(&promptIDs, "prompt-ids", "", "token IDs to continue, separated by commas")
	f.IntVar(&req.MaxNewTokens, "max-new-tokens", 128, "most new tokens")
	f.Float64Var(&req.Temperature, "temperature", 0, "0: greedy")
	f.Float64Var(&req.TopP, "top-p", 1, "draw from the likeliest tokens that reach this probability together")
	f.Uint64Var(&req.Seed, "seed", 0, "seed of the draws")
	f.StringArrayVar(&stops, "stop", nil, "end before this text (repeatable)")
	f.BoolVar(&req.TruncateMiddle, "truncate-middle", false, "cut the middle out of a prompt that is too long, instead of failing")
	f.StringVar(&device, "device", "auto", "auto, host or cuda[:N]")
	f.StringVar(&dtypeName, "dtype", "f32", "type of computation: f32, f64 or bf16")
	if err := cmd.MarkFlagRequired("model"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

// readPrompt reads a text to continue, to its last byte.
func readPrompt(stdin io.Reader, path string) (string, error) {
	data, err := os.ReadFile(path)
	if path == "-" {
		data, err = io.ReadAll(stdin)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("--prompt-file: %w", err)
	case len(data) == 0:
		return "", fmt.Errorf("--prompt-file: %s is empty", path)
	case !utf8.Valid(data):
		return "", fmt.Errorf("--prompt-file: %s is not UTF-8 text", path)
	}
	return string(data), nil
}

func parseIDs(s string) ([]int32, error) {
	var ids []int32
	for field := range strings.SplitSeq(s, ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(field), 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("--prompt-ids: %q is not a token ID", field)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// cutAt returns text up to the first of the stop strings.
func cutAt(text string, stops []string) string {
	for _, s := range stops {
		if at := strings.Index(text, s); at >= 0 {
			text = text[:at]
		}
	}
	return text
}
