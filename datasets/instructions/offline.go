package instructions

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/longalign/longalign-go/datasets"
)

// Offline is a teacher that needs no network and is no language model: it asks and answers by rules
// what can be read off the document. About Go source it asks for names, values, signatures and
// documentation; about other text for sentences and words of it. Equal requests get equal replies.
//
// Answers are exact, of very different lengths, and always in the document, which is what a test of long-context
// training needs; they say nothing about a model's usefulness.
type Offline struct{}

// OfflineDescription is what Offline says it is.
const OfflineDescription = "offline rules, not a language model"

// Describe says that the teacher is no language model.
func (Offline) Describe() string { return OfflineDescription }

// qa is a question that rules can ask and answer.
type qa struct {
	task             datasets.TaskType
	kind             string
	question, answer string
	needle           string // passage of the document that holds the answer
}

// Ask proposes five questions of the task, or answers one it proposed.
func (Offline) Ask(ctx context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	if err := ctx.Err(); err != nil {
		return datasets.TeacherReply{}, err
	}
	all := questionsAbout(r.Document, r.Lang)
	if r.Kind == datasets.RequestAnswer {
		for _, q := range all {
			if q.question == r.Question {
				return datasets.TeacherReply{Text: q.answer, QuestionKind: q.kind, Needle: q.needle}, nil
			}
		}
		return datasets.TeacherReply{Finish: "refusal"}, nil
	}
	// The general task takes any question; others fall back to it where the document offers none.
	fitting := slices.Clone(all)
	fitting = slices.DeleteFunc(fitting, func(q qa) bool { return q.task != r.Task && r.Task != datasets.TaskGeneral })
	if len(fitting) == 0 {
		fitting = all
	}
	datasets.Shuffle(datasets.NewRand(r.Seed, uint64(r.Sample)), fitting)
	var b strings.Builder
	for i, q := range fitting[:min(5, len(fitting))] {
		fmt.Fprintf(&b, "%d: %s\n", i+1, q.question)
	}
	return datasets.TeacherReply{Text: b.String()}, nil
}

// questionsAbout returns the questions that a document answers, each question once.
func questionsAbout(d datasets.Document, lang string) []qa {
	var all []qa
	if d.Kind == string(datasets.FormatGo) {
		all = goQuestions(d.Text)
	}
	if len(all) == 0 {
		all = textQuestions(d.Text, lang)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(q qa) bool {
		// A question that two passages answer is no question, nor is one that would not survive parsing.
		again := seen[q.question] || strings.TrimSpace(q.answer) == "" || strings.ContainsAny(q.question, "\n\r")
		seen[q.question] = true
		return again
	})
}

// goQuestions asks about the declarations of a Go file.
func goQuestions(text string) []qa {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil
	}
	source := func(n ast.Node) string {
		f := files.File(file.FileStart)
		return text[f.Offset(n.Pos()):f.Offset(n.End())]
	}
	all := []qa{{datasets.TaskGeneral, "package", "Which package is this source from?", file.Name.Name, "package " + file.Name.Name}}
	var names, summaries, failing []string
	add := func(q qa) { all = append(all, q) }
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			names = append(names, name)
			if returnsError(d) {
				failing = append(failing, name)
			}
			add(qa{datasets.TaskExtraction, "signature", "What is the signature of " + name + "?", signature(files, d), source(d)})
			add(qa{datasets.TaskReasoning, "parameters", "How many parameters does " + name + " take?", strconv.Itoa(d.Type.Params.NumFields()), source(d)})
			if d.Doc == nil {
				continue
			}
			doc := strings.TrimSpace(d.Doc.Text())
			first := firstSentence(doc)
			summaries = append(summaries, name+": "+first)
			add(qa{datasets.TaskSummary, "doc", "What does the documentation of " + name + " say?", doc, source(d.Doc)})
			if does, ok := strings.CutPrefix(first, name+" "); ok && !strings.Contains(does, name) {
				add(qa{datasets.TaskExtraction, "name", "Name the function that " + strings.TrimRight(does, ".") + ".", name, source(d.Doc)})
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
					if d.Doc != nil && len(d.Specs) == 1 {
						doc := strings.TrimSpace(d.Doc.Text())
						summaries = append(summaries, s.Name.Name+": "+firstSentence(doc))
						add(qa{datasets.TaskSummary, "doc", "What does the documentation of the type " + s.Name.Name + " say?", doc, source(d.Doc)})
					}
					if fields, ok := s.Type.(*ast.StructType); ok {
						add(qa{datasets.TaskReasoning, "fields", "How many fields does the type " + s.Name.Name + " have?", strconv.Itoa(fields.Fields.NumFields()), source(s)})
					}
				case *ast.ValueSpec:
					for i, name := range s.Names {
						if len(s.Values) != len(s.Names) || name.Name == "_" {
							continue
						}
						if v := source(s.Values[i]); len(v) <= 60 && !strings.Contains(v, "\n") && v != "iota" {
							add(qa{datasets.TaskExtraction, "value", "What is the value of " + name.Name + "?", v, source(s)})
						}
					}
				}
			}
		}
	}
	if file.Doc != nil {
		add(qa{datasets.TaskSummary, "doc", "What does the documentation of the package say?", strings.TrimSpace(file.Doc.Text()), source(file.Doc)})
	}
	if len(names) > 1 {
		add(qa{datasets.TaskReasoning, "list", "Which functions and types are declared here, in order?", strings.Join(names, ", "), ""})
		add(qa{datasets.TaskReasoning, "count", "How many functions and types are declared here?", strconv.Itoa(len(names)), ""})
		if len(failing) > 0 {
			add(qa{datasets.TaskReasoning, "errors", "Which functions here return an error?", strings.Join(failing, ", "), ""})
		}
	}
	if len(summaries) > 1 {
		add(qa{datasets.TaskSummary, "summary", "Summarize the declarations in one sentence each.", strings.Join(summaries, "\n"), ""})
	}
	return all
}

// signature is a function's declaration without comment and body, on one line.
func signature(files *token.FileSet, d *ast.FuncDecl) string {
	var b strings.Builder
	bare := &ast.FuncDecl{Recv: d.Recv, Name: d.Name, Type: d.Type}
	if err := printer.Fprint(&b, files, bare); err != nil {
		return ""
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func returnsError(d *ast.FuncDecl) bool {
	if d.Type.Results == nil {
		return false
	}
	for _, result := range d.Type.Results.List {
		if id, ok := result.Type.(*ast.Ident); ok && id.Name == "error" {
			return true
		}
	}
	return false
}

// firstSentence returns a text up to its first full stop that ends a sentence, on one line.
func firstSentence(text string) string {
	paragraph, _, _ := strings.Cut(text, "\n\n")
	text = strings.Join(strings.Fields(paragraph), " ")
	for i := 0; i < len(text); i++ {
		if text[i] == '.' && (i+1 == len(text) || text[i+1] == ' ') && !strings.HasSuffix(text[:i], "e.g") && !strings.HasSuffix(text[:i], "i.e") {
			return text[:i+1]
		}
	}
	return text
}

// wording is how textQuestions asks in one language.
type wording struct{ sentence, begins, number, opening, paragraphs, outline, count string }

var wordings = map[string]wording{
	"en": {
		sentence:   "What does the text say about “%s”?",
		begins:     "How does the sentence continue that begins “%s”?",
		number:     "Which number stands at the gap in “%s”?",
		opening:    "With which sentence does the text begin?",
		paragraphs: "Quote the paragraph about “%s”.",
		outline:    "Give the first sentence of every paragraph.",
		count:      "How many paragraphs does the text have?",
	},
	"zh": {
		sentence:   "关于“%s”，文中是怎么说的？",
		begins:     "以“%s”开头的句子接下来是怎么写的？",
		number:     "“%s”的空缺处应填什么数字？",
		opening:    "这篇文本的第一句话是什么？",
		paragraphs: "请引用谈到“%s”的那一段。",
		outline:    "请列出每一段的第一句话。",
		count:      "这篇文本一共有多少段？",
	},
}

// maxTextQuestions bounds the sentences asked about: evenly spread ones of a long text.
const maxTextQuestions = 60

// textQuestions asks for sentences, words, numbers and paragraphs of a text.
func textQuestions(text, lang string) []qa {
	w, ok := wordings[lang]
	if !ok {
		w = wordings["en"]
	}
	var all []qa
	add := func(q qa) { all = append(all, q) }
	var outline []string
	var sentences, paragraphOf []string
	blocks := strings.Split(text, "\n\n")
	blocks = slices.DeleteFunc(blocks, func(b string) bool { return strings.TrimSpace(b) == "" })
	for _, block := range blocks {
		in := sentencesOf(block)
		if len(in) > 0 {
			outline = append(outline, oneLine(in[0]))
		}
		for _, s := range in {
			sentences, paragraphOf = append(sentences, s), append(paragraphOf, block)
		}
	}
	if len(sentences) == 0 {
		return nil
	}
	frequency := map[string]int{}
	for _, s := range sentences {
		for _, word := range termsOf(s, lang) {
			frequency[word]++
		}
	}
	stride := max(1, (len(sentences)+maxTextQuestions-1)/maxTextQuestions)
	for i := 0; i < len(sentences); i += stride {
		s, line := sentences[i], oneLine(sentences[i])
		rarest := ""
		for _, word := range termsOf(s, lang) {
			if frequency[word] == 1 && utf8.RuneCountInString(word) > utf8.RuneCountInString(rarest) {
				rarest = word
			}
		}
		if rarest != "" {
			add(qa{datasets.TaskExtraction, "sentence", fmt.Sprintf(w.sentence, rarest), line, s})
			if p := strings.TrimSpace(paragraphOf[i]); p != strings.TrimSpace(s) {
				add(qa{datasets.TaskSummary, "paragraph", fmt.Sprintf(w.paragraphs, rarest), p, p})
			}
		}
		if head, tail, ok := half(line); ok {
			add(qa{datasets.TaskReasoning, "continue", fmt.Sprintf(w.begins, head), tail, s})
		}
		if before, number, after, ok := firstNumber(line); ok && utf8.RuneCountInString(line) < 200 {
			add(qa{datasets.TaskExtraction, "number", fmt.Sprintf(w.number, before+"____"+after), number, s})
		}
	}
	add(qa{datasets.TaskGeneral, "opening", w.opening, oneLine(sentences[0]), sentences[0]})
	if len(outline) > 1 {
		add(qa{datasets.TaskSummary, "outline", w.outline, strings.Join(outline, "\n"), ""})
		add(qa{datasets.TaskReasoning, "count", w.count, strconv.Itoa(len(blocks)), ""})
	}
	return all
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// sentencesOf cuts a paragraph after . ! ? and their Chinese forms.
func sentencesOf(text string) []string {
	var sentences []string
	start := 0
	cut := func(end int) {
		if s := strings.TrimSpace(text[start:end]); utf8.RuneCountInString(s) >= 8 {
			sentences = append(sentences, s)
		}
		start = end
	}
	for i, r := range text {
		next := i + utf8.RuneLen(r)
		switch r {
		case '。', '！', '？':
			cut(next)
		case '.', '!', '?':
			if next == len(text) || text[next] == ' ' || text[next] == '\n' {
				cut(next)
			}
		}
	}
	cut(len(text))
	return sentences
}

// termsOf returns words that can stand for a sentence: words of five letters and more, or runs of four
// Han characters.
func termsOf(s, lang string) []string {
	var terms []string
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' }) {
		runes := []rune(f)
		switch {
		case lang != "zh" && len(runes) >= 5:
			terms = append(terms, f)
		case lang == "zh":
			for i := 0; i+4 <= len(runes); i += 4 {
				terms = append(terms, string(runes[i:i+4]))
			}
		}
	}
	return terms
}

// half parts a sentence after its first third: at a space, or anywhere in Chinese.
func half(s string) (head, tail string, ok bool) {
	runes := []rune(s)
	if len(runes) < 15 {
		return "", "", false
	}
	at := min(len(runes)/3, 60)
	if strings.Contains(s, " ") {
		for at < len(runes) && runes[at] != ' ' {
			at++
		}
	}
	head, tail = strings.TrimSpace(string(runes[:at])), strings.TrimSpace(string(runes[at:]))
	return head, tail, head != "" && tail != ""
}

// firstNumber parts a sentence at its first number.
func firstNumber(s string) (before, number, after string, ok bool) {
	digit := func(r rune) bool { return '0' <= r && r <= '9' }
	start := strings.IndexFunc(s, digit)
	if start < 0 {
		return "", "", "", false
	}
	end := start
	for end < len(s) && digit(rune(s[end])) {
		end++
	}
	return s[:start], s[start:end], s[end:], true
}
