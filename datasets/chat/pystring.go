package chat

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// side says where strip takes characters away.
type side int

const (
	left side = 1 << iota
	right
	both = left | right
)

// strip is Python's str.strip, lstrip or rstrip: of white space, or of the characters in
// chars if not empty.
func strip(s string, where side, chars string) string {
	gone := isPythonSpace
	if chars != "" {
		gone = func(r rune) bool { return strings.ContainsRune(chars, r) }
	}
	if where&left != 0 {
		s = strings.TrimLeftFunc(s, gone)
	}
	if where&right != 0 {
		s = strings.TrimRightFunc(s, gone)
	}
	return s
}

// isPythonSpace is str.isspace, which counts four separators that Unicode does not.
func isPythonSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F
}

// stringMethods are the methods of str that templates call on contents, as Python has
// them: gonja's own strip ASCII only.
var stringMethods = exec.NewMethodSet(map[string]exec.Method[string]{
	"strip":      stripMethod("strip", both),
	"lstrip":     stripMethod("lstrip", left),
	"rstrip":     stripMethod("rstrip", right),
	"startswith": affixMethod("startswith", strings.HasPrefix),
	"endswith":   affixMethod("endswith", strings.HasSuffix),
	"split":      splitMethod,
})

// oneString takes the only argument a method is called with.
func oneString(method string, args *exec.VarArgs) (string, error) {
	if len(args.Args) != 1 || len(args.KwArgs) > 0 || !args.Args[0].IsString() {
		return "", fmt.Errorf("method %q is supported with one string as its argument", method)
	}
	return args.Args[0].String(), nil
}

func stripMethod(name string, where side) exec.Method[string] {
	return func(self string, _ *exec.Value, args *exec.VarArgs) (any, error) {
		if len(args.Args)+len(args.KwArgs) == 0 {
			return strip(self, where, ""), nil
		}
		chars, err := oneString(name, args)
		if err != nil || chars == "" {
			return self, err
		}
		return strip(self, where, chars), nil
	}
}

func affixMethod(name string, has func(s, affix string) bool) exec.Method[string] {
	return func(self string, _ *exec.Value, args *exec.VarArgs) (any, error) {
		affix, err := oneString(name, args)
		return err == nil && has(self, affix), err
	}
}

func splitMethod(self string, _ *exec.Value, args *exec.VarArgs) (any, error) {
	sep, err := oneString("split", args)
	if err != nil {
		return nil, err
	}
	if sep == "" {
		return nil, errors.New("split: empty separator")
	}
	return strings.Split(self, sep), nil
}
