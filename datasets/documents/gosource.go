package documents

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

// readGo reads a Go file: its package's documentation and its documented declarations, each with its
// comment and source, functions without their bodies where those do not fit into a part.
func (r *reader) readGo(name string) error {
	text, err := r.whole(name)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return &InputError{File: name, Reason: "is not Go", Err: err}
	}
	if ast.IsGenerated(file) {
		return errNotADocument
	}
	head := "package " + file.Name.Name + "\n\n"
	source := func(from, to token.Pos) string {
		f := files.File(from)
		return text[f.Offset(from):f.Offset(to)]
	}
	var units []unit
	if file.Doc != nil && strings.TrimSpace(file.Doc.Text()) != "" {
		units = append(units, unit{"package " + file.Name.Name, source(file.Doc.Pos(), file.Doc.End())})
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil {
				continue
			}
			s := source(d.Doc.Pos(), d.End())
			if limit := r.PartBytes - len(head); r.PartBytes > 0 && len(s) > limit && d.Body != nil {
				s = strings.TrimRight(source(d.Doc.Pos(), d.Body.Pos()), " ")
			}
			units = append(units, unit{d.Name.Name, s})
		case *ast.GenDecl:
			if d.Doc == nil || d.Tok == token.IMPORT || len(d.Specs) == 0 {
				continue
			}
			units = append(units, unit{specName(d.Specs[0]), source(d.Doc.Pos(), d.End())})
		}
	}
	if len(units) == 0 {
		return errNotADocument
	}
	return r.emitParts(units, head, datasets.Document{Group: path.Dir(name), Lang: "en"}, datasets.FormatGo)
}

func specName(s ast.Spec) string {
	switch s := s.(type) {
	case *ast.TypeSpec:
		return s.Name.Name
	case *ast.ValueSpec:
		return s.Names[0].Name
	}
	return ""
}
