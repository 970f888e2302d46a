package chat

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/testenv/refdata"
)

func readAll(r io.Reader) (talks [][]Message, bad []string) {
	for i, err := range Read(r, "f", 1<<20) {
		if err != nil {
			bad = append(bad, err.Error())
			continue
		}
		talks = append(talks, i.Messages)
	}
	return talks, bad
}

func TestTheUsualChatFormsAreRead(t *testing.T) {
	talk := [][]Message{{user("Q"), assistant("A")}}
	for name, tt := range map[string]struct {
		in   string
		want [][]Message
	}{
		"messages":            {`{"messages":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}]}`, talk},
		"text parts":          {`{"messages":[{"role":"user","content":[{"type":"text","value":"Q"}]},{"role":"assistant","content":[{"type":"text","text":"A"}],"loss_weight":1.0}]}`, talk},
		"ShareGPT":            {`{"conversations":[{"from":"human","value":"Q"},{"from":"gpt","value":"A"}]}`, talk},
		"ShareGPT array":      {"\ufeff[\n" + `{"id":"x","conversations":[{"from":"human","value":"Q"},{"from":"gpt","value":"A"}]}` + "\n]", talk},
		"ShareGPT and system": {`{"system":"S","conversations":[{"from":"human","value":"Q"},{"from":"gpt","value":"A"}]}`, [][]Message{{system("S"), user("Q"), assistant("A")}}},
		"instruction":         {`{"instruction":"Q","input":"","output":"A"}`, talk},
		"instruction, input and history": {
			`{"instruction":"Q","input":"I","output":"A","history":[["q","a"]]}`,
			[][]Message{{user("q"), assistant("a"), user("Q\nI"), assistant("A")}},
		},
		"context and query": {`{"context":"D","query":"Q","answer":"A"}`, [][]Message{{user("D\n\nQ"), assistant("A")}}},
		"blank lines":       {"\n\n" + `{"instruction":"Q","output":"A"}` + "\n\n", talk},
		"an empty file":     {" \n", nil},
	} {
		got, bad := readAll(strings.NewReader(tt.in))
		if diff := cmp.Diff(tt.want, got); diff != "" || bad != nil {
			t.Errorf("%s: %v\n%s", name, bad, diff)
		}
	}
}

func TestBadConversationsAreNamedByLineAndReadingGoesOn(t *testing.T) {
	good := `{"instruction":"Q","output":"A"}`
	for name, tt := range map[string]struct {
		in   string
		good int
		want []string
	}{
		"broken JSON":        {good + "\n{\"instr\n" + good, 2, []string{"f:2: unexpected end of JSON input"}},
		"a NUL byte":         {good + "\n{\"instruction\":\"\x00\"}\n", 1, []string{"f:2: invalid character '\\x00' in string literal"}},
		"an escaped NUL":     {`{"instruction":"Q\u0000","output":"A"}`, 0, []string{"f:1: message 0 has a NUL character, so it is no text"}},
		"invalid UTF-8":      {good + "\n{\"instruction\":\"\xe9\",\"output\":\"A\"}\n" + good, 2, []string{"f:2: is not UTF-8: byte 0xe9 at 16; convert it, for example with iconv -t UTF-8"}},
		"half a character":   {`{"instruction":"Q","output":"\ude00"}`, 0, []string{`f:1: has half a surrogate pair, \ude00, at 29: a character was cut in two; mend it where the file was made`}},
		"another form":       {`{"text":"x"}`, 0, []string{`f:1: no conversation; expected "messages", "conversations", "instruction" with "output", or "context" with "query" and "answer"`}},
		"an unknown role":    {`{"conversations":[{"from":"tool","value":"x"}]}`, 0, []string{`f:1: message 0: unknown role "tool"; use system, user (human) or assistant (gpt)`}},
		"wrong types":        {`{"messages":[{"role":"user","content":7}]}`, 0, []string{"f:1: content is neither a string nor a list of parts"}},
		"no alternation":     {`{"conversations":[{"from":"gpt","value":"x"}]}`, 0, []string{`f:1: message 0: role "assistant" where "user" is expected; user and assistant must alternate, beginning with user`}},
		"no answer":          {`{"messages":[{"role":"user","content":"x"}]}`, 0, []string{"f:1: the last message is the user's, so there is no answer to train on"}},
		"no messages":        {`{"messages":[]}`, 0, []string{"f:1: no messages"}},
		"a line in an array": {"[\n" + good + ",\n\n{\"messages\":[]},\n" + good + "]", 2, []string{"f:4: conversation 2: no messages"}},
		"a broken array":     {"[\n" + good + ",\n{\"x\": ]", 1, []string{"f:3: broken JSON array: invalid character ']' looking for beginning of value"}},
		"an array cut off":   {"[\n" + good + ",\n", 1, []string{"f:3: broken JSON array: unexpected EOF"}},
	} {
		got, bad := readAll(strings.NewReader(tt.in))
		if diff := cmp.Diff(tt.want, bad); diff != "" || len(got) != tt.good {
			t.Errorf("%s: %d good\n%s", name, len(got), diff)
		}
	}
}

func TestShareGPTIsReadFromItsFirstQuestionToItsLastReply(t *testing.T) {
	turns := func(form string, roles ...string) string {
		names := map[string][4]string{"conversations": {"conversations", "from", "value"}, "messages": {"messages", "role", "content"}}[form]
		var list []string
		for i, r := range roles {
			list = append(list, fmt.Sprintf(`{%q:%q,%q:"%d"}`, names[1], r, names[2], i))
		}
		return fmt.Sprintf(`{%q:[%s]}`, names[0], strings.Join(list, ","))
	}
	for name, tt := range map[string]struct {
		in       string
		want     string // the messages kept, by number
		unpaired int
		bad      string
	}{
		"a reply first, a question last":       {in: turns("conversations", "gpt", "human", "gpt", "human", "gpt", "human"), want: "1234", unpaired: 2},
		"the system's message stays":           {in: turns("conversations", "system", "gpt", "gpt", "human", "gpt"), want: "034", unpaired: 2},
		"whole ones stay":                      {in: turns("conversations", "human", "gpt"), want: "01"},
		"nothing but a reply":                  {in: turns("conversations", "gpt"), bad: `f:1: message 0: role "assistant" where "user" is expected; user and assistant must alternate, beginning with user`},
		"nothing but questions":                {in: turns("conversations", "human"), bad: "f:1: the last message is the user's, so there is no answer to train on"},
		"two questions in the middle are none": {in: turns("conversations", "human", "human", "gpt"), bad: `f:1: message 1: role "user" where "assistant" is expected; user and assistant must alternate, beginning with user`},
		"messages are meant as they stand":     {in: turns("messages", "user", "assistant", "user"), bad: "f:1: the last message is the user's, so there is no answer to train on"},
	} {
		for i, err := range Read(strings.NewReader(tt.in), "f", 1<<20) {
			if tt.bad != "" {
				if err == nil || err.Error() != tt.bad {
					t.Errorf("%s: got %v", name, err)
				}
				continue
			}
			got := ""
			for _, m := range i.Messages {
				got += m.Content
			}
			if got != tt.want || i.Unpaired != tt.unpaired || err != nil {
				t.Errorf("%s: messages %s, %d left out, %v", name, got, i.Unpaired, err)
			}
		}
	}
}

func TestAReadersErrorEndsTheReading(t *testing.T) {
	broken := errors.New("disk on fire")
	r := io.MultiReader(strings.NewReader(`{"instruction":"Q","output":"A"}`+"\n"), errReader{broken})
	n := 0
	var last error
	for _, err := range Read(r, "f", 1<<20) {
		n++
		last = err
	}
	if n != 2 || !errors.Is(last, broken) {
		t.Errorf("%d items, last error %v", n, last)
	}
}

func TestALongConversationIsPassedOverInBoundedMemory(t *testing.T) {
	good := `{"instruction":"Q","output":"A"}`
	long := func() io.Reader { // 64 MiB
		return io.MultiReader(strings.NewReader(`{"instruction":"`), io.LimitReader(letters{}, 64<<20), strings.NewReader(`","output":"A"}`))
	}
	for name, tt := range map[string]struct {
		in   io.Reader
		good int
		want string
	}{
		"a line":           {io.MultiReader(strings.NewReader(good+"\n"), long(), strings.NewReader("\n"+good)), 2, "f:2: the conversation is longer than max_bytes (1048576); raise it"},
		"the last line":    {io.MultiReader(strings.NewReader(good+"\n"), long()), 1, "f:2: the conversation is longer than max_bytes (1048576); raise it"},
		"one of an array":  {io.MultiReader(strings.NewReader("["+good+",\n"), long(), strings.NewReader(","+good+"]")), 1, "f:1: broken JSON array: the rest of the array is lost, lines of JSON would not be: the conversation is longer than max_bytes (1048576); raise it"},
		"none of an array": {strings.NewReader("[" + strings.Repeat(good+",", 1<<16) + good + "]"), 1<<16 + 1, ""},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, bad := 0, ""
		for _, err := range Read(tt.in, "f", 1<<20) {
			if err != nil {
				bad += err.Error()
			} else {
				n++
			}
		}
		runtime.ReadMemStats(&after)
		if n != tt.good || bad != tt.want {
			t.Errorf("%s: %d good, %q", name, n, bad)
		}
		if used := after.TotalAlloc - before.TotalAlloc; tt.want != "" && used > 32<<20 {
			t.Errorf("%s: took %d MiB", name, used>>20)
		}
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestRealChatFilesAreReadWhole(t *testing.T) {
	root := refdata.Path(t, "cases")
	for file, want := range map[string]int{
		"sharegpt/dummy_conversation.json": 500,
		"sharegpt/original_example.json":   5,
		"sharegpt/v1_sft_demo.jsonl":       500,
		"inputs/longreward_sft.jsonl":      1,
	} {
		f, err := os.Open(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, bad := readAll(f)
		if len(got) != want || bad != nil {
			t.Errorf("%s: %d conversations, want %d; errors %v", file, len(got), want, bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"messages":[{"role":"user","content":"Q"},{"role":"assistant","content":[{"type":"text","text":"A"}]}]}`)
	f.Add("[{\"conversations\":[{\"from\":\"human\",\"value\":\"\\ud800\"}]},\n{}]")
	f.Add("{\"history\":[[\"a\"]],\"instruction\":\"x\",\"output\":\"y\"}\n[")
	f.Fuzz(func(t *testing.T, in string) {
		lines := strings.Count(in, "\n") + 1
		for i, err := range Read(strings.NewReader(in), "f", 1<<20) {
			var bad *LineError
			switch {
			case err == nil:
				if i.Check() != nil || i.Messages[len(i.Messages)-1].Role != datasets.RoleAssistant {
					t.Errorf("yielded %v", i)
				}
			case !errors.As(err, &bad) || bad.Line < 1 || bad.Line > lines:
				t.Errorf("error %v in a text of %d lines", err, lines)
			}
		}
	})
}
