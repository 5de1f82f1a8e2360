package stage

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// calicoSelector tells whether labels match one of Calico's selectors.
type calicoSelector func(labels map[string]string) bool

// parseCalico reads a selector in Calico's language:
// https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy#selector. An empty one selects
// everything.
func parseCalico(text string) (calicoSelector, error) {
	if strings.TrimSpace(text) == "" {
		return func(map[string]string) bool { return true }, nil
	}
	p := &calicoParser{}
	for rest := text; strings.TrimSpace(rest) != ""; {
		rest = strings.TrimSpace(rest)
		token := calicoToken.FindString(rest)
		if token == "" {
			return nil, fmt.Errorf("selector %q: cannot be read from %q on", text, rest)
		}
		p.tokens, rest = append(p.tokens, token), rest[len(token):]
	}
	out := p.or(0)
	if p.failed || len(p.tokens) > 0 {
		return nil, fmt.Errorf("selector %q: %w", text, errCalico)
	}
	return out, nil
}

var errCalico = errors.New("it is not in Calico's language as far as it is known here")

// calicoToken is one token at the beginning of a text.
var calicoToken = regexp.MustCompile(`^(&&|\|\||==|!=|[!(){},]|"[^"]*"|'[^']*'|[A-Za-z0-9_./-]+)`)

// calicoWord is a token that is a word: the name of a label, or of an operator.
var calicoWord = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

// maxCalicoDepth bounds parentheses and negations inside of each other.
const maxCalicoDepth = 100

type calicoParser struct {
	tokens []string
	failed bool
}

func (p *calicoParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *calicoParser) next() string {
	token := p.peek()
	if token == "" {
		p.failed = true
		return ""
	}
	p.tokens = p.tokens[1:]
	return token
}

func (p *calicoParser) expect(tokens ...string) {
	for _, want := range tokens {
		if p.next() != want {
			p.failed = true
		}
	}
}

// list reads what an operator joins.
func (p *calicoParser) list(operator string, one func() calicoSelector) []calicoSelector {
	out := []calicoSelector{one()}
	for !p.failed && p.peek() == operator {
		p.next()
		out = append(out, one())
	}
	return out
}

func (p *calicoParser) or(depth int) calicoSelector {
	list := p.list("||", func() calicoSelector { return p.and(depth) })
	return func(l map[string]string) bool {
		return slices.ContainsFunc(list, func(s calicoSelector) bool { return s(l) })
	}
}

func (p *calicoParser) and(depth int) calicoSelector {
	list := p.list("&&", func() calicoSelector { return p.term(depth) })
	return func(l map[string]string) bool {
		return !slices.ContainsFunc(list, func(s calicoSelector) bool { return !s(l) })
	}
}

func (p *calicoParser) term(depth int) calicoSelector {
	if depth > maxCalicoDepth {
		p.failed = true
		return nil
	}
	switch word := p.next(); word {
	case "!":
		inner := p.term(depth + 1)
		return func(l map[string]string) bool { return !inner(l) }
	case "(":
		inner := p.or(depth + 1)
		p.expect(")")
		return inner
	case "all", "global":
		if p.peek() == "(" {
			p.expect("(", ")")
			return func(map[string]string) bool { return word == "all" } // global() is about what is in no namespace
		}
		return p.comparison(word)
	case "has":
		if p.peek() == "(" {
			p.expect("(")
			key := p.next()
			p.expect(")")
			return func(l map[string]string) bool {
				_, ok := l[key]
				return ok
			}
		}
		return p.comparison(word)
	default:
		return p.comparison(word)
	}
}

// comparison reads what follows a label's name.
func (p *calicoParser) comparison(key string) calicoSelector {
	operator := p.next()
	negated := operator == "not"
	if negated {
		operator = p.next()
	}
	switch operator {
	case "==", "!=":
		want := p.text()
		return func(l map[string]string) bool {
			have, ok := l[key]
			return (ok && have == want) == (operator == "==")
		}
	case "in":
		var set []string
		p.expect("{")
		if p.peek() != "}" {
			p.list(",", func() calicoSelector {
				set = append(set, p.text())
				return nil
			})
		}
		p.expect("}")
		return func(l map[string]string) bool {
			have, ok := l[key]
			return (ok && slices.Contains(set, have)) != negated
		}
	}
	var matches func(have, want string) bool
	switch operator {
	case "contains":
		matches = strings.Contains
	case "starts":
		matches = strings.HasPrefix
	case "ends":
		matches = strings.HasSuffix
	default:
		p.failed = true
		return nil
	}
	if operator != "contains" {
		p.expect("with")
	}
	if negated {
		p.failed = true
	}
	want := p.text()
	return func(l map[string]string) bool {
		have, ok := l[key]
		return ok && matches(have, want)
	}
}

// text reads a quoted text.
func (p *calicoParser) text() string {
	token := p.next()
	if len(token) < 2 || token[0] != '"' && token[0] != '\'' {
		p.failed = true
		return ""
	}
	return token[1 : len(token)-1]
}
