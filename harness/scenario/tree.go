package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds on what a file may hold.
const (
	// What projects publish to be applied as it is has several megabytes, because of its CustomResourceDefinitions.
	maxFileSize = 8 << 20
	// maxValues bounds what a document's aliases expand to.
	maxValues = 200_000
	maxDepth  = 100
	// maxDocuments bounds the documents of a file: as many as the objects of one call.
	maxDocuments = 20_000
)

type valueKind int

const (
	nullValue valueKind = iota
	scalarValue
	listValue
	mappingValue
)

func (k valueKind) String() string {
	return [...]string{"empty", "a single value", "a list", "a mapping"}[k]
}

// value is a node of a YAML or JSON document, with aliases and merge keys resolved and its place in the file.
type value struct {
	at   Position
	kind valueKind

	// text, tag and plain belong to scalars. plain is true when the scalar was written without quotes.
	text  string
	tag   string
	plain bool

	items   []*value
	entries []entry
}

type entry struct {
	key   *value
	value *value
}

// get returns what a mapping holds under a key, or nil.
func (v *value) get(key string) *value {
	if v == nil {
		return nil
	}
	for _, e := range v.entries {
		if e.key.text == key {
			return e.value
		}
	}
	return nil
}

// keyAt returns where a key of a mapping stands.
func (v *value) keyAt(key string) Position {
	for _, e := range v.entries {
		if e.key.text == key {
			return e.key.at
		}
	}
	return v.at
}

// str returns the text of a scalar, or "".
func (v *value) str() string {
	if v == nil || v.kind != scalarValue {
		return ""
	}
	return v.text
}

// yaml11Booleans are the words that Kubernetes' YAML reads as booleans, other than true and false in their spellings.
var yaml11Booleans = map[string]bool{
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

// boolean reads a scalar as Kubernetes' YAML does.
func (v *value) boolean() (b, ok bool) {
	if v.kind != scalarValue || !v.plain {
		return false, false
	}
	if b, ok = yaml11Booleans[v.text]; ok {
		return b, true
	}
	if v.tag == "!!bool" {
		return strings.EqualFold(v.text, "true"), true
	}
	return false, false
}

// integer reads a scalar as an integer. 80.0 is one, as it is in JSON.
func (v *value) integer() (int64, bool) {
	if v.kind != scalarValue {
		return 0, false
	}
	text := strings.ReplaceAll(v.text, "_", "")
	switch v.tag {
	case "!!int":
		n, err := strconv.ParseInt(text, 0, 64)
		return n, err == nil
	case "!!float":
		f, err := strconv.ParseFloat(text, 64)
		if err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), true
		}
	}
	return 0, false
}

func (v *value) isInteger() bool {
	_, ok := v.integer()
	return ok
}

// nonText says what a scalar is to Kubernetes' YAML if it is not text: "a boolean", "a number".
func (v *value) nonText() string {
	if v.kind != scalarValue || !v.plain {
		return ""
	}
	if _, ok := v.boolean(); ok {
		return "a boolean"
	}
	switch v.tag {
	case "!!int", "!!float":
		return "a number"
	}
	return ""
}

// plainValue turns a value into what JSON would make of it: the form of unstructured objects.
func (v *value) plainValue() any {
	switch v.kind {
	case listValue:
		out := make([]any, len(v.items))
		for i, item := range v.items {
			out[i] = item.plainValue()
		}
		return out
	case mappingValue:
		out := make(map[string]any, len(v.entries))
		for _, e := range v.entries {
			out[e.key.text] = e.value.plainValue()
		}
		return out
	case scalarValue:
		if b, ok := v.boolean(); ok {
			return b
		}
		if n, ok := v.integer(); ok {
			return n
		}
		if v.tag == "!!float" || v.tag == "!!int" {
			if f, err := strconv.ParseFloat(v.text, 64); err == nil {
				return f
			}
		}
		return v.text
	}
	return nil
}

// document is one document of a file.
type document struct {
	root *value
	// bullets are the lines that begin with a bullet instead of a dash.
	bullets []bullet
}

// manifestKey is a line without which a file holds no manifest.
var manifestKey = regexp.MustCompile(`(?m)^[ \t{-]*["']?(apiVersion|kind)["']?[ \t]*:|["'](apiVersion|kind)["'][ \t]*:`)

// taken is what messages take from a file. It reaches to the last sign of its kind, which the text itself may hold too.
var taken = regexp.MustCompile("`.*`|'.*'|\".*\"")

// redact takes out of the problems what they quote.
func (p Problems) redact() {
	for i := range p {
		p[i].Message = taken.ReplaceAllString(p[i].Message, "`...`")
		p[i].Fix = taken.ReplaceAllString(p[i].Fix, "`...`")
	}
}

// parse reads the documents of a file. What cannot be read is reported; the documents before it are returned all the
// same. Nothing is quoted of a file that holds no manifest: a link or a path may have led to another one, and its words
// may be secrets.
func parse(file string, data []byte, c *collector) []document {
	own := &collector{}
	docs := parseDocuments(file, data, own)
	if !manifestKey.Match(data) {
		own.problems.redact()
	}
	c.problems = append(c.problems, own.problems...)
	c.warnings = append(c.warnings, own.warnings...)
	return docs
}

func parseDocuments(file string, data []byte, c *collector) (docs []document) {
	start := Position{file, 1, 1}
	switch {
	case len(data) > maxFileSize:
		c.add(start, "split it into several files, or take out what is not a policy",
			"the file has %s, and %s is the most that is read", size(len(data)), size(maxFileSize))
		return nil
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		c.add(start, "save it as UTF-8", "the file is written in UTF-16")
		return nil
	case !utf8.Valid(data):
		c.add(invalidUTF8(file, data), "save it as UTF-8", "this byte is not part of UTF-8 text")
		return nil
	}
	// A carriage return alone would count as the end of a line to YAML and as nothing to editors.
	lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
	defer func() {
		// The parser panics on some malformed input instead of returning an error.
		if r := recover(); r != nil {
			c.add(start, "check the file with another YAML parser", "the file cannot be read as YAML: %v", r)
		}
	}()
	template := bytes.Contains(data, []byte("{{"))
	for _, part := range jsonObjects(data) {
		decoder := yaml.NewDecoder(bytes.NewReader(part.text))
		for {
			var node yaml.Node
			err := decoder.Decode(&node)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				c.problems = append(c.problems, syntaxProblem(file, lines, err))
				break
			}
			if len(node.Content) == 0 {
				continue
			}
			b := &builder{file: file, c: c, template: template, from: part}
			root := b.build(node.Content[0], 0)
			if b.failed || root.kind == nullValue {
				continue
			}
			docs = append(docs, document{root: root})
			if len(docs) > maxDocuments {
				c.add(start, "split it into several files", "the file has more than %d documents", maxDocuments)
				return nil
			}
		}
	}
	for i := range docs {
		end := len(lines)
		if i+1 < len(docs) {
			end = docs[i+1].root.at.Line - 1
		}
		if hasBullets(docs[i].root) {
			docs[i].bullets = bulletLines(file, lines, docs[i].root.at.Line, end)
		}
	}
	return docs
}

// part is a part of a file, and where it begins: lines and columns before it.
type part struct {
	text          []byte
	lines, column int
}

// jsonObjects takes JSON objects apart that follow one another without a mark between them, as kubectl takes them. Any
// other file is one part.
func jsonObjects(data []byte) []part {
	whole := []part{{text: data}}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return whole
	}
	var out []part
	decoder := json.NewDecoder(bytes.NewReader(data))
	counted, lines, lineStart := 0, 0, 0
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) && len(out) > 1 {
			return out
		}
		if err != nil || len(out) > maxDocuments {
			return whole
		}
		begin := int(decoder.InputOffset()) - len(raw)
		for ; counted < begin; counted++ {
			if data[counted] == '\n' {
				lines, lineStart = lines+1, counted+1
			}
		}
		out = append(out, part{text: raw, lines: lines, column: begin - lineStart})
	}
}

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

func invalidUTF8(file string, data []byte) Position {
	at := Position{file, 1, 1}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if r == '\n' {
			at.Line, at.Column = at.Line+1, 0
		}
		at.Column++
		data = data[n:]
	}
	return at
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

var unknownAnchor = regexp.MustCompile(`^unknown anchor '([^']*)'`)

// syntaxProblem turns an error of the YAML parser, which has a line at best, into a problem.
func syntaxProblem(file string, lines []string, err error) Problem {
	at := Position{file, 1, 1}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlErrorLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.Line = min(max(n, 1), len(lines))
		}
		message = m[2]
	}
	line := strings.TrimRight(lines[at.Line-1], "\r")
	at.Column = firstColumn(line)
	if m := unknownAnchor.FindStringSubmatch(message); m != nil {
		// The parser gives no line for these.
		for i, l := range lines {
			if before, _, ok := strings.Cut(l, "*"+m[1]); ok {
				at.Line, at.Column = i+1, utf8.RuneCountInString(before)+1
				break
			}
		}
	}
	for i, l := range lines {
		first := strings.TrimSpace(l)
		if first == "" {
			continue
		}
		if first == "yaml" || strings.HasPrefix(first, "```") {
			what := "this line"
			if strings.Trim(first, "`") == "yaml" {
				what = "`" + first + "`"
			}
			return problemAt(Position{file, i + 1, firstColumn(l)}, "remove this line: it belongs to the page that the snippet was copied from",
				"%s is not part of the manifest", what)
		}
		break
	}
	fix := "check the indentation of this line and of the one above"
	trimmed := strings.TrimSpace(line)
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	switch {
	case strings.Contains(strings.Join(lines, "\n"), "{{"):
		fix = templateFix
	case startsWithBullet(trimmed):
		fix = bulletFix
	case strings.Contains(indent, "\t"):
		message, fix = "a tab cannot indent YAML", "indent with spaces"
	case strings.Contains(message, "unknown anchor"):
		fix = "define the anchor with `&` before it is used, in the same document"
	case strings.Contains(message, "could not find expected ':'"):
		fix = "put `: ` after the key, or check the indentation of this line and of the one above"
	case starValue.MatchString(line):
		message, fix = "a `*` alone begins an alias", "quote it: \"*\""
		before := line[:starValue.FindStringIndex(line)[0]]
		at.Column = utf8.RuneCountInString(before) + strings.Index(line[len(before):], "*") + 1
	case strings.Contains(message, "control characters"):
		fix = "remove the control character, or write it as an escape in double quotes"
	}
	return problemAt(at, fix, "not YAML: %s", message)
}

// starValue is a value or an item of a list that begins with an unquoted star.
var starValue = regexp.MustCompile(`(:[ \t]+|[\[,][ \t]*|-[ \t]+)\*([ \t,}/\]]|$)`)

// firstColumn is the column of the first character that is not white space.
func firstColumn(line string) int {
	column := 1
	for _, r := range line {
		if r != ' ' && r != '\t' {
			return column
		}
		column++
	}
	return 1
}

const templateFix = "this looks like a template: render it first, for example with `helm template`"

const bulletFix = "a list item starts with `- `: replace the bullet by a dash"

// bullet is a line that begins with a bullet.
type bullet struct {
	at   Position
	sign string
}

// bullets are the signs that word processors and web pages set before the items of a list.
var bullets = []string{"•", "‣", "◦", "●", "○", "▪", "∙", "·", "–", "—"}

func startsWithBullet(s string) bool {
	return slices.ContainsFunc(bullets, func(b string) bool { return strings.HasPrefix(s, b) })
}

// hasBullets tells whether an unquoted key or text of a document begins with a bullet.
func hasBullets(v *value) bool {
	switch v.kind {
	case scalarValue:
		return v.plain && startsWithBullet(v.text)
	case listValue:
		return slices.ContainsFunc(v.items, hasBullets)
	case mappingValue:
		return slices.ContainsFunc(v.entries, func(e entry) bool { return hasBullets(e.key) || hasBullets(e.value) })
	}
	return false
}

func bulletLines(file string, lines []string, first, last int) (out []bullet) {
	for n := first; n <= last && n <= len(lines); n++ {
		if text := strings.TrimSpace(lines[n-1]); startsWithBullet(text) {
			_, width := utf8.DecodeRuneInString(text)
			out = append(out, bullet{Position{file, n, firstColumn(lines[n-1])}, text[:width]})
		}
	}
	return out
}

// builder turns the parser's nodes into values.
type builder struct {
	file   string
	c      *collector
	count  int
	failed bool
	// template is true when the file looks like a template that was not rendered.
	template bool
	// open are the aliases being resolved.
	open []*yaml.Node
	// from is the part of the file that the nodes were read from.
	from part
}

func (b *builder) fail(n *yaml.Node, fix, format string, args ...any) *value {
	if !b.failed {
		b.c.add(b.position(n), fix, format, args...)
	}
	b.failed = true
	return &value{at: b.position(n)}
}

func (b *builder) position(n *yaml.Node) Position {
	column := n.Column
	if n.Line == 1 {
		column += b.from.column
	}
	return Position{b.file, b.from.lines + n.Line, column}
}

func (b *builder) build(n *yaml.Node, depth int) *value {
	b.count++
	switch {
	case b.failed:
		return &value{at: b.position(n)}
	case b.count > maxValues:
		return b.fail(n, "write the document without aliases (`*name`), or split it", "the document expands to more than %d values", maxValues)
	case depth > maxDepth:
		return b.fail(n, "no policy and no scenario needs this", "the document is nested more than %d levels deep", maxDepth)
	}
	v := &value{at: b.position(n)}
	switch n.Kind {
	case yaml.AliasNode:
		if slices.Contains(b.open, n.Alias) {
			return b.fail(n, "write out what is meant", "the alias `*%s` contains itself", n.Value)
		}
		b.open = append(b.open, n.Alias)
		v = b.build(n.Alias, depth+1)
		b.open = b.open[:len(b.open)-1]
		return v
	case yaml.ScalarNode:
		v.kind, v.text, v.tag = scalarValue, n.Value, n.ShortTag()
		v.plain = n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
		switch v.tag {
		case "!!null":
			v.kind = nullValue
		case "!!float":
			if f, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
				return b.fail(n, fmt.Sprintf("quote it: %q", v.text), "`%s` is a number that Kubernetes cannot take", v.text)
			}
		case "!!str", "!!int", "!!bool", "!!timestamp", "!!merge":
			if n.Style&yaml.TaggedStyle != 0 {
				// An explicit !!str is as good as quotes.
				v.plain = v.plain && v.tag != "!!str"
			}
		default:
			return b.fail(n, "remove the tag", "the tag `%s` means nothing here", n.Tag)
		}
	case yaml.SequenceNode:
		v.kind = listValue
		for _, item := range n.Content {
			v.items = append(v.items, b.build(item, depth+1))
		}
	case yaml.MappingNode:
		v.kind = mappingValue
		b.mapping(v, n, depth)
	default:
		return b.fail(n, "write a mapping, a list or a value", "this is not a YAML value")
	}
	return v
}

func (b *builder) mapping(v *value, n *yaml.Node, depth int) {
	seen := map[string]Position{}
	var merged []*value
	for i := 0; i+1 < len(n.Content) && !b.failed; i += 2 {
		keyNode, valueNode := n.Content[i], n.Content[i+1]
		key, val := b.build(keyNode, depth+1), b.build(valueNode, depth+1)
		if b.failed {
			return
		}
		if key.kind == nullValue && keyNode.Kind == yaml.ScalarNode && keyNode.Value != "" {
			// A key such as ~ or null: report it as text that must be quoted.
			key.kind, key.text, key.plain, key.tag = scalarValue, keyNode.Value, true, "!!null"
		}
		if key.kind != scalarValue {
			fix := "write a word as the key"
			if b.template {
				fix = templateFix
			}
			b.fail(keyNode, fix, "a key must be a single word, and this one is %s", key.kind)
			return
		}
		if key.tag == "!!merge" && key.plain {
			merged = append(merged, val)
			continue
		}
		if first, twice := seen[key.text]; twice {
			b.c.add(key.at, "keep one of the two", "duplicate key `%s`: it is also on line %d", key.text, first.Line)
			continue
		}
		seen[key.text] = key.at
		v.entries = append(v.entries, entry{key, val})
	}
	for _, m := range merged {
		sources := []*value{m}
		if m.kind == listValue {
			sources = m.items
		}
		for _, s := range sources {
			if s.kind != mappingValue {
				b.fail(n, "merge a mapping: `<<: *name`", "`<<` merges mappings, and this is %s", s.kind)
				return
			}
			for _, e := range s.entries {
				if _, has := seen[e.key.text]; !has {
					seen[e.key.text] = e.key.at
					v.entries = append(v.entries, e)
				}
			}
		}
	}
}
