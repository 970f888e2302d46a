package chat

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// gonja computes with other values than Python does where types are mixed, numbers negative or values missing. So the nodes of a
// parsed template that compute, choose or print are replaced by calls of functions of this file, which compute as
// Python does, and fail where they cannot.

// refusal begins the errors of this file, inside those that gonja wraps around them.
const refusal = "\x01"

// refused is an expression whose value Jinja may compute otherwise.
func refused(node nodes.Node, format string, args ...any) *exec.Value {
	return exec.AsValue(fmt.Errorf(refusal+"line %d: %s is not rendered exactly here; use a built-in template", node.Position().Line, fmt.Sprintf(format, args...)))
}

// rewriter replaces nodes. functions are the replacements, by names that no template can contain.
type rewriter struct {
	src       string
	functions map[string]any
	done      map[nodes.Node]nodes.Node
}

// function returns a node that evaluates to what f returns.
func (w *rewriter) function(at nodes.Node, f func(e *exec.Evaluator) *exec.Value) nodes.Expression {
	name := "\x00" + strconv.Itoa(len(w.functions))
	w.functions[name] = func(e *exec.Evaluator, _ *exec.VarArgs) *exec.Value { return f(e) }
	token := *at.Position()
	token.Val = name
	return &nodes.Call{Location: &token, Func: &nodes.Name{Name: &token}}
}

// nodes replaces what a list of nodes computes and prints.
func (w *rewriter) nodes(list []nodes.Node) {
	for i, n := range list {
		switch n := n.(type) {
		case *nodes.Output:
			condition := w.expression(n.Condition)
			printed := func(of nodes.Expression) nodes.Expression {
				if of == nil {
					return nil
				}
				return w.printed(of)
			}
			if condition != nil {
				condition = w.truth(condition)
			}
			list[i] = &nodes.Output{Start: n.Start, Expression: printed(n.Expression), Condition: condition, Alternative: printed(n.Alternative), End: n.End}
		case *nodes.ControlStructureBlock:
			switch s := n.ControlStructure.(type) {
			case *controlStructures.IfControlStructure:
				for k, c := range s.Conditions {
					s.Conditions[k] = w.truth(w.expression(c))
				}
				for _, body := range s.Wrappers {
					w.nodes(body.Nodes)
				}
			case *controlStructures.ForControlStructure:
				s.ObjectEvaluator = w.iterated(w.expression(s.ObjectEvaluator))
				if s.IfCondition != nil {
					s.IfCondition = w.truth(w.expression(s.IfCondition))
				}
				w.nodes(s.BodyWrapper.Nodes)
				if s.EmptyWrapper != nil {
					w.nodes(s.EmptyWrapper.Nodes)
				}
			case *assignment:
				s.rewrite(w)
			}
		}
	}
}

// expression replaces n, below which everything has been replaced.
func (w *rewriter) expression(n nodes.Expression) nodes.Expression {
	if n == nil || reflect.ValueOf(n).Kind() == reflect.Pointer && reflect.ValueOf(n).IsNil() {
		return nil
	}
	if known, ok := w.done[n]; ok {
		return known
	}
	w.done[n] = n
	out := w.replaced(n)
	w.done[n], w.done[out] = out, out
	return out
}

func (w *rewriter) all(list []nodes.Expression) {
	for i := range list {
		list[i] = w.expression(list[i])
	}
}

func (w *rewriter) named(list map[string]nodes.Expression) {
	for name := range list {
		list[name] = w.expression(list[name])
	}
}

func (w *rewriter) replaced(n nodes.Expression) nodes.Expression {
	switch n := n.(type) {
	case *nodes.None:
		if n.Location.Val == "nil" {
			return w.function(n, func(*exec.Evaluator) *exec.Value { return refused(n, "nil") })
		}
	case *nodes.List:
		w.all(n.Val)
	case *nodes.Tuple:
		w.all(n.Val)
	case *nodes.Dict:
		for _, p := range n.Pairs {
			p.Key, p.Value = w.expression(p.Key), w.expression(p.Value)
		}
	case *nodes.Call:
		n.Func = w.expression(n.Func)
		if n.Parent != nil {
			n.Parent = w.expression(n.Parent)
		}
		w.all(n.Args)
		w.named(n.Kwargs)
	case *nodes.GetAttribute:
		n.Node = w.expression(n.Node) // stays a GetAttribute, which the call of a method needs
	case *nodes.GetItem:
		n.Node, n.Arg = w.expression(n.Node), w.expression(n.Arg)
		return w.function(n, func(e *exec.Evaluator) *exec.Value { return item(e, n) })
	case *nodes.GetSlice:
		n.Node, n.Start, n.End, n.Step = w.expression(n.Node), w.expression(n.Start), w.expression(n.End), w.expression(n.Step)
	case *nodes.Negation:
		term := w.truth(w.expression(n.Term))
		return w.function(n, func(e *exec.Evaluator) *exec.Value {
			v := e.Eval(term)
			if v.IsError() {
				return v
			}
			return exec.AsValue(!v.Bool())
		})
	case *nodes.UnaryExpression:
		n.Term = w.expression(n.Term)
		return w.function(n, func(e *exec.Evaluator) *exec.Value {
			v := e.Eval(n.Term)
			if k := kindOf(v); k != kindInt && k != kindFloat && k != kindError {
				return refused(n, "a sign before a value of type %s", k)
			}
			return e.Eval(n)
		})
	case *nodes.BinaryExpression:
		return w.binary(n)
	case *nodes.FilteredExpression:
		return w.filtered(n)
	case *nodes.TestExpression:
		return w.tested(n)
	}
	return n
}

// truth makes n a bool, by Python's rules.
func (w *rewriter) truth(n nodes.Expression) nodes.Expression {
	return w.function(n, func(e *exec.Evaluator) *exec.Value { return truthOf(n, e.Eval(n)) })
}

func truthOf(n nodes.Node, v *exec.Value) *exec.Value {
	switch k := kindOf(v); k {
	case kindError:
		return v
	case kindDict:
		return exec.AsValue(v.Len() > 0)
	case kindOther:
		return refused(n, "whether %s is true", n)
	default:
		return exec.AsValue(v.IsTrue())
	}
}

// iterated lets a loop run only over what it runs over in Python's order.
func (w *rewriter) iterated(n nodes.Expression) nodes.Expression {
	return w.function(n, func(e *exec.Evaluator) *exec.Value {
		v := e.Eval(n)
		switch k := kindOf(v); {
		case k == kindError, k == kindList, k == kindString, k == kindOther && v.Val.Kind() == reflect.Chan:
			return v
		case k == kindDict && v.Val.Kind() != reflect.Map:
			return v
		default:
			return refused(n, "a loop over a value of type %s", k)
		}
	})
}

// printed makes n the text that Jinja writes for it.
func (w *rewriter) printed(n nodes.Expression) nodes.Expression {
	value := w.expression(n)
	return w.function(n, func(e *exec.Evaluator) *exec.Value {
		v := e.Eval(value)
		if v.IsNil() && undefined(e, n) {
			return exec.AsValue("")
		}
		return text(n, v)
	})
}

// text is Python's str of scalars.
func text(n nodes.Node, v *exec.Value) *exec.Value {
	switch k := kindOf(v); k {
	case kindString, kindInt, kindFloat, kindBool:
		return exec.AsValue(v.String())
	case kindError:
		return v
	default:
		return refused(n, "writing a value of type %s", k)
	}
}

// undefined tells whether n names nothing, rather than none.
func undefined(e *exec.Evaluator, n nodes.Expression) bool {
	absent := func(of nodes.Node, key string) bool {
		v := e.Eval(of)
		return v.IsDict() && !v.Contains(exec.AsValue(key))
	}
	switch n := n.(type) {
	case *nodes.Name:
		return n.Name.Val != "none" && !e.Environment.Context.Has(n.Name.Val)
	case *nodes.GetAttribute:
		return absent(n.Node, n.Attribute)
	case *nodes.GetItem:
		v, key := e.Eval(n.Node), e.Eval(n.Arg)
		switch {
		case kindOf(v) == kindDict && kindOf(key) == kindString:
			return absent(n.Node, key.String())
		case kindOf(v) == kindList && kindOf(key) == kindInt:
			i := key.Integer()
			return i >= v.Len() || i < -v.Len()
		}
	}
	return false
}

// item is n[arg] for lists and strings from either end, and for the keys of dicts.
func item(e *exec.Evaluator, n *nodes.GetItem) *exec.Value {
	v, key := e.Eval(n.Node), e.Eval(n.Arg)
	switch k := kindOf(v); {
	case k == kindError:
		return v
	case kindOf(key) == kindError:
		return key
	case kindOf(key) == kindInt && (k == kindList || k == kindString):
		i := key.Integer()
		if i < 0 {
			i += v.Len()
		}
		if i < 0 || i >= v.Len() {
			return exec.AsValue(nil)
		}
		return v.Index(i)
	case kindOf(key) == kindString && k != kindNone:
		return e.Eval(n)
	default:
		return refused(n, "an item %s of a value of type %s", kindOf(key), k)
	}
}

func (w *rewriter) filtered(n *nodes.FilteredExpression) nodes.Expression {
	before := n.Expression
	n.Expression = w.expression(n.Expression)
	for _, f := range n.Filters {
		w.all(f.Args)
		w.named(f.Kwargs)
	}
	return w.function(n, func(e *exec.Evaluator) *exec.Value {
		v := e.Eval(n.Expression)
		for i, f := range n.Filters {
			if v.IsError() {
				return v
			}
			if f.Name == "default" || f.Name == "d" {
				// Only what is undefined has a default, not none.
				v = defaulted(e, n, f, v, i == 0 && v.IsNil() && undefined(e, before))
			} else if filterable(f, v) {
				v = e.ExecuteFilter(f, v)
			} else {
				return refused(n, "filter %q of this value of type %s", f.Name, kindOf(v))
			}
		}
		return v
	})
}

// defaulted is the filter default.
func defaulted(e *exec.Evaluator, n nodes.Node, f *nodes.FilterCall, v *exec.Value, undefined bool) *exec.Value {
	args := f.Args
	if b, ok := f.Kwargs["boolean"]; ok && len(args) == 1 {
		args = append(args[:1:1], b)
	}
	if len(args) < 1 || len(args) > 2 || len(f.Args)+len(f.Kwargs) != len(args) {
		return refused(n, "filter default with these arguments")
	}
	replace := undefined
	if len(args) == 2 {
		falsy, truth := truthOf(n, e.Eval(args[1])), truthOf(n, v)
		if falsy.IsError() {
			return falsy
		}
		if truth.IsError() {
			return truth
		}
		replace = replace || falsy.Bool() && !truth.Bool()
	}
	switch {
	case replace:
		return e.Eval(args[0])
	case v.IsNil():
		return refused(n, "a default for what may be none")
	}
	return v
}

// filterable tells whether gonja's filter does with v what Jinja's does.
func filterable(f *nodes.FilterCall, v *exec.Value) bool {
	k, bare := kindOf(v), len(f.Args)+len(f.Kwargs) == 0
	scalar := k == kindString || k == kindInt || k == kindFloat || k == kindBool
	switch f.Name {
	case "upper", "lower": // beyond ASCII, one letter may become two
		return bare && k == kindString && strings.IndexFunc(v.String(), func(r rune) bool { return r > unicode.MaxASCII }) < 0
	case "length", "count":
		return bare && (k == kindString || k == kindList || k == kindDict)
	case "first", "last":
		return bare && k == kindList && v.Len() > 0
	case "string":
		return bare && scalar
	case "trim", "safe":
		return k == kindString
	case "int":
		if k == kindString {
			_, err := strconv.ParseInt(v.String(), 10, 32)
			return bare && err == nil
		}
		return bare && (k == kindInt || k == kindFloat)
	case "list":
		return bare && (k == kindString || k == kindList || k == kindOther && v.Val.Kind() == reflect.Chan)
	case "join":
		if k != kindList || len(f.Args) > 1 || len(f.Kwargs) > 0 {
			return false
		}
		for i := range v.Len() {
			if of := kindOf(v.Index(i)); of != kindString && of != kindInt {
				return false
			}
		}
	}
	return true // the others execute nothing
}

func (w *rewriter) tested(n *nodes.TestExpression) nodes.Expression {
	before := n.Expression
	n.Expression = w.expression(n.Expression)
	w.all(n.Test.Args)
	w.named(n.Test.Kwargs)
	name := n.Test.Name
	return w.function(n, func(e *exec.Evaluator) *exec.Value {
		v := e.Eval(n.Expression)
		if v.IsError() {
			return v
		}
		switch name {
		case "in":
			if len(n.Test.Args) == 1 {
				return contains(n, e.Eval(n.Test.Args[0]), v)
			}
		case "eq", "equalto", "==", "ne", "!=":
			if len(n.Test.Args) == 1 {
				return equal(n, v, e.Eval(n.Test.Args[0]), name == "ne" || name == "!=")
			}
		}
		switch k := kindOf(v); {
		case (name == "odd" || name == "even") && k != kindInt:
			return refused(n, "whether a value of type %s is %s", k, name)
		case name == "odd" || name == "even":
			return exec.AsValue((v.Integer()&1 == 1) == (name == "odd"))
		case name == "number":
			return exec.AsValue(k == kindInt || k == kindFloat || k == kindBool)
		case k != kindNone:
			return e.Eval(n)
		}
		missing := undefined(e, before)
		known := missing
		switch b := before.(type) {
		case *nodes.None:
			known = true
		case *nodes.Name:
			known = known || b.Name.Val == "none" || e.Environment.Context.Has(b.Name.Val)
		}
		switch {
		case !known, name == "iterable", name == "sequence":
			return refused(n, "whether %s, which has no value, is %s", before, name)
		case name == "defined":
			return exec.AsValue(!missing)
		case name == "undefined":
			return exec.AsValue(missing)
		case name == "none":
			return exec.AsValue(!missing)
		}
		return e.Eval(n)
	})
}

// chained tells whether n compares the result of a comparison that stands in no parentheses: in Python, a == b == c is a == b and b == c.
func (w *rewriter) chained(n *nodes.BinaryExpression) bool {
	left, ok := n.Left.(*nodes.BinaryExpression)
	if !ok || !operatorCompares(left.Operator.Token.Type) || !operatorCompares(n.Operator.Token.Type) {
		return false
	}
	before := w.src[:min(n.Operator.Token.Pos, len(w.src))]
	return !strings.HasSuffix(strings.TrimSpace(before), ")")
}

func operatorCompares(op tokens.Type) bool {
	return slices.Contains([]tokens.Type{tokens.Equals, tokens.Ne, tokens.LowerThan, tokens.LowerThanOrEqual, tokens.GreaterThan, tokens.GreaterThanOrEqual}, op)
}

func (w *rewriter) binary(n *nodes.BinaryExpression) nodes.Expression {
	if w.chained(n) {
		return w.function(n, func(*exec.Evaluator) *exec.Value { return refused(n, "a chain of comparisons") })
	}
	n.Left, n.Right = w.expression(n.Left), w.expression(n.Right)
	return w.function(n, func(e *exec.Evaluator) *exec.Value {
		left := e.Eval(n.Left)
		if left.IsError() {
			return left
		}
		switch n.Operator.Token.Type {
		case tokens.And, tokens.Or:
			truth := truthOf(n.Left, left)
			if truth.IsError() || truth.Bool() == (n.Operator.Token.Type == tokens.Or) {
				if truth.IsError() {
					return truth
				}
				return left
			}
			return e.Eval(n.Right)
		}
		right := e.Eval(n.Right)
		if right.IsError() {
			return right
		}
		return operate(n, n.Operator.Token, left, right)
	})
}

// operate computes the operators that evaluate both sides.
func operate(n nodes.Node, op *tokens.Token, left, right *exec.Value) *exec.Value {
	l, r := kindOf(left), kindOf(right)
	refuse := func() *exec.Value { return refused(n, "%s %s %s", l, op.Val, r) }
	ints := l == kindInt && r == kindInt
	numbers := (l == kindInt || l == kindFloat) && (r == kindInt || r == kindFloat)
	strs := l == kindString && r == kindString
	switch op.Type {
	case tokens.Equals, tokens.Ne:
		return equal(n, left, right, op.Type == tokens.Ne)
	case tokens.In:
		return contains(n, right, left)
	case tokens.Tilde:
		a, b := text(n, left), text(n, right)
		if a.IsError() {
			return a
		}
		if b.IsError() {
			return b
		}
		return exec.AsValue(a.String() + b.String())
	case tokens.Addition:
		switch {
		case ints:
			return exec.AsValue(left.Integer() + right.Integer())
		case numbers:
			return exec.AsValue(left.Float() + right.Float())
		case strs:
			return exec.AsValue(left.String() + right.String())
		case l == kindList && r == kindList:
			var both []any
			for _, v := range []*exec.Value{left, right} {
				for i := range v.Len() {
					both = append(both, v.Index(i).Interface())
				}
			}
			return exec.AsValue(both)
		}
	case tokens.Subtraction:
		switch {
		case ints:
			return exec.AsValue(left.Integer() - right.Integer())
		case numbers:
			return exec.AsValue(left.Float() - right.Float())
		}
	case tokens.Multiply:
		switch {
		case ints:
			return exec.AsValue(left.Integer() * right.Integer())
		case numbers:
			return exec.AsValue(left.Float() * right.Float())
		case l == kindString && r == kindInt && right.Integer() <= 1<<16:
			return exec.AsValue(strings.Repeat(left.String(), max(0, right.Integer())))
		}
	case tokens.Division:
		if numbers && right.Float() != 0 {
			return exec.AsValue(left.Float() / right.Float())
		}
	case tokens.FloorDivision, tokens.Modulo:
		if !ints || right.Integer() == 0 {
			break
		}
		a, b := left.Integer(), right.Integer()
		quotient, rest := a/b, a%b
		if rest != 0 && (rest < 0) != (b < 0) { // Python rounds down
			quotient, rest = quotient-1, rest+b
		}
		if op.Type == tokens.Modulo {
			return exec.AsValue(rest)
		}
		return exec.AsValue(quotient)
	case tokens.LowerThan, tokens.LowerThanOrEqual, tokens.GreaterThan, tokens.GreaterThanOrEqual:
		var order int
		switch {
		case strs:
			order = strings.Compare(left.String(), right.String())
		case ints:
			order = compare(left.Integer(), right.Integer())
		case numbers:
			order = compare(left.Float(), right.Float())
		default:
			return refuse()
		}
		switch op.Type {
		case tokens.LowerThan:
			return exec.AsValue(order < 0)
		case tokens.LowerThanOrEqual:
			return exec.AsValue(order <= 0)
		case tokens.GreaterThan:
			return exec.AsValue(order > 0)
		}
		return exec.AsValue(order >= 0)
	}
	return refuse()
}

func compare[T int | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// equal is Python's == of scalars, where a bool is a number; lists are compared only with an empty one.
func equal(n nodes.Node, left, right *exec.Value, not bool) *exec.Value {
	number := func(v *exec.Value) (float64, bool) {
		switch kindOf(v) {
		case kindBool:
			if v.Bool() {
				return 1, true
			}
			return 0, true
		case kindInt, kindFloat:
			return v.Float(), true
		}
		return 0, false
	}
	l, r := kindOf(left), kindOf(right)
	a, aNumber := number(left)
	b, bNumber := number(right)
	same := false
	switch {
	case l == kindError:
		return left
	case r == kindError:
		return right
	case l == kindOther, r == kindOther, l == kindNone && r == kindNone, l == kindDict && r == kindDict:
		return refused(n, "%s == %s", l, r)
	case aNumber && bNumber:
		same = a == b
	case l == kindString && r == kindString:
		same = left.String() == right.String()
	case l == kindList && r == kindList:
		if left.Len() > 0 && right.Len() > 0 {
			return refused(n, "list == list")
		}
		same = left.Len() == right.Len()
	}
	return exec.AsValue(same != not)
}

// contains is Python's in.
func contains(n nodes.Node, in, v *exec.Value) *exec.Value {
	switch k := kindOf(in); {
	case k == kindError:
		return in
	case kindOf(v) == kindError:
		return v
	case kindOf(v) == kindString && k == kindString:
		return exec.AsValue(strings.Contains(in.String(), v.String()))
	case kindOf(v) == kindString && k == kindDict:
		return exec.AsValue(in.Contains(v))
	case k == kindList:
		for i := range in.Len() {
			same := equal(n, in.Index(i), v, false)
			if same.IsError() || same.Bool() {
				return same
			}
		}
		return exec.AsValue(false)
	}
	return refused(n, "%s in %s", kindOf(v), kindOf(in))
}

// kind is the Python type of a value, as far as templates are told them apart.
type kind string

const (
	kindError  kind = "error"
	kindNone   kind = "none or undefined"
	kindBool   kind = "bool"
	kindInt    kind = "int"
	kindFloat  kind = "float"
	kindString kind = "str"
	kindList   kind = "list"
	kindDict   kind = "dict"
	kindOther  kind = "object"
)

func kindOf(v *exec.Value) kind {
	switch {
	case v.IsError():
		return kindError
	case v.IsNil():
		return kindNone
	case v.IsBool():
		return kindBool
	case v.IsInteger():
		return kindInt
	case v.IsFloat():
		return kindFloat
	case v.IsString():
		return kindString
	case v.IsList():
		return kindList
	case v.IsDict():
		return kindDict
	}
	return kindOther
}

// assignment is {% set name = value %}, of an attribute too, and {% set name %}…{% endset %}. Unlike gonja's its nodes can be replaced.
type assignment struct {
	location                      *tokens.Token
	target                        nodes.Expression
	value, condition, alternative nodes.Expression
	body                          *nodes.Wrapper
}

// Position is where the statement stands.
func (s *assignment) Position() *tokens.Token { return s.location }

func (s *assignment) String() string { return fmt.Sprintf("set, line %d", s.location.Line) }

func (s *assignment) rewrite(w *rewriter) {
	if attribute, ok := s.target.(*nodes.GetAttribute); ok {
		attribute.Node = w.expression(attribute.Node)
	}
	s.value, s.alternative = w.expression(s.value), w.expression(s.alternative)
	if s.condition != nil {
		s.condition = w.truth(w.expression(s.condition))
	}
	if s.body != nil {
		w.nodes(s.body.Nodes)
	}
}

func parseAssignment(p, args *parser.Parser) (nodes.ControlStructure, error) {
	s := &assignment{location: args.Current()}
	target, err := args.ParseVariableOrLiteral()
	if err != nil {
		return nil, err
	}
	switch target.(type) {
	case *nodes.Name, *nodes.GetAttribute:
		s.target = target
	default:
		return nil, fmt.Errorf("set %s is not rendered exactly here", target)
	}
	if args.Match(tokens.Assign) == nil {
		if !args.End() {
			return nil, args.Error("expected = or the end of the tag", args.Current())
		}
		body, rest, err := p.WrapUntil("endset")
		if err == nil && !rest.End() {
			err = rest.Error("endset takes no arguments", nil)
		}
		s.body = body
		return s, err
	}
	if s.value, err = args.ParseExpression(); err != nil {
		return nil, err
	}
	if s.condition, s.alternative, err = args.ParseCondition(); err != nil {
		return nil, err
	}
	if s.condition != nil && s.alternative == nil {
		return nil, args.Error("set with an if needs an else here", args.Current())
	}
	if !args.End() {
		return nil, args.Error("set is malformed", args.Current())
	}
	return s, nil
}

// Execute sets the variable.
func (s *assignment) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	var v *exec.Value
	if s.body != nil {
		var text strings.Builder
		sub := r.Inherit()
		sub.Output = &text
		if err := sub.ExecuteWrapper(s.body); err != nil {
			return err
		}
		v = exec.AsValue(text.String())
	} else {
		chosen := s.value
		if s.condition != nil {
			condition := r.Eval(s.condition)
			if condition.IsError() {
				return condition
			}
			if !condition.Bool() {
				chosen = s.alternative
			}
		}
		v = r.Eval(chosen)
	}
	if v.IsError() {
		return v
	}
	switch target := s.target.(type) {
	case *nodes.Name:
		r.Environment.Context.Set(target.Name.Val, v.Interface())
		return nil
	case *nodes.GetAttribute:
		object := r.Eval(target.Node)
		if object.IsError() {
			return object
		}
		return object.Set(exec.AsValue(target.Attribute), v.Interface())
	}
	return errors.New("set: an unknown target")
}

// document is the whole of a rewritten template, executed as the only statement of another.
type document struct {
	location *tokens.Token
	body     *nodes.Wrapper
}

// Position is the template's beginning.
func (d *document) Position() *tokens.Token { return d.location }

func (d *document) String() string { return "template" }

// Execute renders the template.
func (d *document) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(d.body)
}
