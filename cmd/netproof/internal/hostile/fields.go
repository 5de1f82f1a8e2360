package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Field is a place in a file that a hostile string can take: what stands between before and after.
type Field struct {
	before, after string
	// quote gives the string in the syntax of the file.
	quote func(string) string
}

// With gives the content of the file with the string in the field, quoted as the file wants it, or raw, whatever comes
// of it.
func (f Field) With(text string, raw bool) string {
	if !raw {
		text = f.quote(text)
	}
	return f.before + text + f.after
}

// yamlFields are all keys and scalars.
func yamlFields(content string) (out []Field) {
	for n := 0; ; n++ {
		var text bytes.Buffer
		count, found := 0, false
		var visit func(*yaml.Node)
		visit = func(node *yaml.Node) {
			if node.Kind == yaml.ScalarNode {
				if count == n {
					node.Value, node.Style, node.Tag, found = placeholder, yaml.DoubleQuotedStyle, "!!str", true
				}
				count++
			}
			for _, inner := range node.Content {
				visit(inner)
			}
		}
		for dec, enc := yaml.NewDecoder(strings.NewReader(content)), yaml.NewEncoder(&text); ; {
			var doc yaml.Node
			if dec.Decode(&doc) != nil {
				_ = enc.Close() // a buffer
				break
			}
			visit(&doc)
			_ = enc.Encode(&doc) // it was just read
		}
		if !found {
			return out
		}
		out = append(out, between(text.String(), `"`+placeholder+`"`, QuoteYAML))
	}
}

const placeholder = "PLACEHOLDER"

func between(content, mark string, quote func(string) string) Field {
	before, after, _ := strings.Cut(content, mark)
	return Field{before, after, quote}
}

// QuoteYAML writes every character that is not plain ASCII as an escape, so that none is lost or refused as a character
// of the file.
func QuoteYAML(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= ' ' && r < 0x7f && r != '"' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return `"` + b.String() + `"`
}

var (
	jsonString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	word       = regexp.MustCompile(`\S+`)
)

// jsonFields are all strings, keys included.
func jsonFields(content string) (out []Field) {
	for _, at := range jsonString.FindAllStringIndex(content, -1) {
		out = append(out, Field{content[:at[0]], content[at[1]:], func(s string) string {
			text, _ := json.Marshal(s) // a string
			return string(text)
		}})
	}
	return out
}

// words are all that white space separates.
func words(content string) (out []Field) {
	for _, at := range word.FindAllStringIndex(content, -1) {
		out = append(out, Field{content[:at[0]], content[at[1]:], func(s string) string { return s }})
	}
	return out
}
