package recipes

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// The forms of a number. YAML has more, such as 010 for 8, which a reader might misunderstand.
var (
	wholeForm  = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*(_[0-9]+)*)$`)
	numberForm = regexp.MustCompile(`^[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
)

// exact is the limit up to which a float64 represents every integer.
const exact = 1 << 53

// scalar checks one value of a kind.
func scalar(n ast.Node, k reflect.Kind) error {
	written, quoted := "", false
	switch n := n.(type) {
	case *ast.StringNode:
		written = n.Value
		quoted = n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		written, quoted = n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		written = n.GetToken().Value
	default:
		return fmt.Errorf("must be %s, is %s", kindName(k), shown(n))
	}
	isWhole := !quoted && wholeForm.MatchString(written)
	isNumber := isWhole || !quoted && numberForm.MatchString(written)
	wrong := fmt.Errorf("must be %s, is %s", kindName(k), shown(n))
	switch k {
	case reflect.String:
		if _, isString := n.(*ast.StringNode); !quoted && (!isString || isNumber) {
			return fmt.Errorf("must be text; put it in quotes: %q", written)
		}
		if problem, _ := badText(written); problem != "" {
			return errors.New(problem)
		}
	case reflect.Bool:
		if _, ok := n.(*ast.BoolNode); !ok {
			return wrong
		}
	case reflect.Float64:
		if !isNumber {
			return wrong
		}
		if _, err := strconv.ParseFloat(strings.ReplaceAll(written, "_", ""), 64); err != nil {
			return fmt.Errorf("is %s, which is too large", written)
		}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		if !isNumber {
			return wrong
		}
		return wholeNumber(written, k, wrong)
	default:
		panic(fmt.Sprintf("recipes: no check for a %v", k)) // a new field's kind; every test would reach this
	}
	return nil
}

// wholeNumber checks that an integer kind can represent the written number.
func wholeNumber(written string, k reflect.Kind, wrong error) error {
	digits := strings.ReplaceAll(written, "_", "")
	var err error
	switch {
	case !wholeForm.MatchString(written): // 20e9
		f, ferr := strconv.ParseFloat(digits, 64)
		switch {
		case ferr != nil || math.Abs(f) > exact:
			err = strconv.ErrRange
		case f != math.Trunc(f):
			return wrong
		case f < 0 && k == reflect.Uint64:
			return errors.New("must not be negative")
		}
	case k == reflect.Uint64 && strings.HasPrefix(digits, "-"):
		return errors.New("must not be negative")
	case k == reflect.Uint64:
		_, err = strconv.ParseUint(strings.TrimPrefix(digits, "+"), 10, 64)
	default:
		_, err = strconv.ParseInt(digits, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("is %s, which is too large", written)
	}
	return nil
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	return "text"
}
