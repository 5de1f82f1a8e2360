package scenario

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/fixtures"
)

var update = flag.Bool("update", false, "write golden files and schemas anew")

const importPath = "github.com/netproof/netproof/harness/scenario"

// reflector makes schemas of the types of this package. Types that are written in more than one way are given by
// mapper.
func reflector(t *testing.T) *jsonschema.Reflector {
	t.Helper()
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, Mapper: mapper(t)}
	// The comments' line breaks mean nothing in a schema.
	require.NoError(t, r.AddGoComments(importPath, "./", jsonschema.WithFullComment()))
	for key, text := range r.CommentMap {
		r.CommentMap[key] = strings.Join(strings.Fields(text), " ")
	}
	return r
}

func mapper(t *testing.T) func(reflect.Type) *jsonschema.Schema {
	port := &jsonschema.Schema{Type: "integer", Minimum: "1", Maximum: "65535"}
	written := func(pattern string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
	const number = `^[0-9]{1,5}(/(TCP|UDP|SCTP))?$`
	const numberOrName = `^[a-z0-9-]{1,15}(/(TCP|UDP|SCTP))?$`
	var self func(reflect.Type) *jsonschema.Schema
	mapping := func(typ reflect.Type) *jsonschema.Schema {
		r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true}
		require.NoError(t, r.AddGoComments(importPath, "./", jsonschema.WithFullComment()))
		for key, text := range r.CommentMap {
			r.CommentMap[key] = strings.Join(strings.Fields(text), " ")
		}
		r.Mapper = func(inner reflect.Type) *jsonschema.Schema {
			if inner == typ {
				return nil
			}
			return self(inner)
		}
		s := r.ReflectFromType(typ)
		s.Version, s.Description = "", ""
		return s
	}
	self = func(typ reflect.Type) *jsonschema.Schema {
		switch typ {
		case reflect.TypeFor[Port](), reflect.TypeFor[ServicePort]():
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{written(number), port, mapping(typ)}}
		case reflect.TypeFor[PortRef]():
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{written(numberOrName), port, mapping(typ)}}
		case reflect.TypeFor[IntOrName]():
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{port, written(`^[a-z0-9-]{1,15}$`)}}
		case reflect.TypeFor[Apply]():
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
				{Type: "string", MinLength: new(uint64)},
				{Type: "object", Required: []string{"apiVersion", "kind"}},
			}}
		case reflect.TypeFor[FolderProbes]():
			list := &jsonschema.Schema{Type: "array", Items: mapping(reflect.TypeFor[Probe]())}
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Enum: []any{boundaryPorts, declaredPorts}}, list}}
		case reflect.TypeFor[Expect]():
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Enum: []any{computed}}, mapping(typ)}}
		case reflect.TypeFor[map[string]*string]():
			return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{
				AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "null"}},
			}}
		}
		return nil
	}
	return self
}

func generateSchema(t *testing.T, title string, v any) []byte {
	t.Helper()
	s := reflector(t).Reflect(v)
	s.Title = title
	text, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	return append(text, '\n')
}

func TestTheSchemasAreCurrent(t *testing.T) {
	for file, want := range map[string][]byte{
		"scenario.schema.json":   generateSchema(t, "netproof scenario", &Scenario{}),
		"assertions.schema.json": generateSchema(t, "netproof assertions", &Assertions{}),
	} {
		name := filepath.Join("schema", file)
		if *update {
			require.NoError(t, os.WriteFile(name, want, 0o644))
			continue
		}
		have, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(have), "%s is old: run `go generate ./harness/scenario`", name)
	}
}

func TestEveryFieldOfAFileIsDocumented(t *testing.T) {
	for _, kind := range []string{Kind, AssertionsKind} {
		text, ok := Schema(kind)
		require.True(t, ok)
		var schema map[string]any
		require.NoError(t, json.Unmarshal(text, &schema))
		var walk func(path string, s map[string]any)
		walk = func(path string, s map[string]any) {
			properties, _ := s["properties"].(map[string]any)
			for name, p := range properties {
				property := p.(map[string]any)
				assert.NotEmpty(t, property["description"], "%s.%s", path, name)
				walk(path+"."+name, property)
			}
			if items, ok := s["items"].(map[string]any); ok {
				walk(path+"[]", items)
			}
			alternatives, _ := s["anyOf"].([]any)
			for _, a := range alternatives {
				walk(path, a.(map[string]any))
			}
		}
		walk(kind, schema)
	}
}

// conforms is as much of a JSON Schema validator as the schemas here need. It returns where a value does not fit.
func conforms(schema map[string]any, v any, path string) []string {
	if alternatives, ok := schema["anyOf"].([]any); ok {
		for _, a := range alternatives {
			if len(conforms(a.(map[string]any), v, path)) == 0 {
				return nil
			}
		}
		return []string{path + ": fits no alternative"}
	}
	var wrong []string
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", path, v, enum))
	}
	switch want, _ := schema["type"].(string); want {
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return append(wrong, path+": no object")
		}
		required, _ := schema["required"].([]any)
		for _, key := range required {
			if _, ok := m[key.(string)]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s: no %s", path, key))
			}
		}
		properties, _ := schema["properties"].(map[string]any)
		for key, inner := range m {
			if p, ok := properties[key].(map[string]any); ok {
				wrong = append(wrong, conforms(p, inner, path+"."+key)...)
			} else if additional, ok := schema["additionalProperties"].(map[string]any); ok {
				wrong = append(wrong, conforms(additional, inner, path+"."+key)...)
			} else if schema["additionalProperties"] == false {
				wrong = append(wrong, fmt.Sprintf("%s: unknown %s", path, key))
			}
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return append(wrong, path+": no list")
		}
		items, _ := schema["items"].(map[string]any)
		for i, inner := range list {
			wrong = append(wrong, conforms(items, inner, fmt.Sprintf("%s[%d]", path, i))...)
		}
	case "string":
		text, ok := v.(string)
		pattern, _ := schema["pattern"].(string)
		if !ok || pattern != "" && !regexp.MustCompile(pattern).MatchString(text) {
			wrong = append(wrong, fmt.Sprintf("%s: %v is no such text", path, v))
		}
	case "integer":
		n, ok := v.(int64)
		low, hasLow := schema["minimum"].(float64)
		high, hasHigh := schema["maximum"].(float64)
		if !ok || hasLow && float64(n) < low || hasHigh && float64(n) > high {
			wrong = append(wrong, fmt.Sprintf("%s: %v is no such number", path, v))
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			wrong = append(wrong, path+": no boolean")
		}
	case "null":
		if v != nil {
			wrong = append(wrong, path+": not null")
		}
	}
	return wrong
}

func scenarioSchemaMap(t *testing.T) map[string]any {
	t.Helper()
	var schema map[string]any
	require.NoError(t, json.Unmarshal(scenarioSchema, &schema))
	return schema
}

func TestAllScenariosThatComeWithNetproofFitTheSchema(t *testing.T) {
	schema := scenarioSchemaMap(t)
	paths := fixtures.Paths()
	require.NotEmpty(t, paths)
	for _, path := range paths {
		text, err := fs.ReadFile(fixtures.FS(), path)
		require.NoError(t, err)
		for _, doc := range parse(path, text, &collector{}) {
			assert.Empty(t, conforms(schema, doc.root.plainValue(), path))
		}
	}
}

func TestTheSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	schema := scenarioSchemaMap(t)
	for name, tweak := range map[string][2]string{
		"an unknown key":       {"ports: [80/TCP]", "portz: [80/TCP]"},
		"an unknown verdict":   {"default: allow", "default: yes please"},
		"a wrong port":         {"ports: [80/TCP]", "ports: [80/TPC]"},
		"a port out of range":  {"ports: [80/TCP]", "ports: [70000]"},
		"a missing expect":     {"expect: {default: allow}", "probes: []"},
		"another kind":         {"kind: Scenario", "kind: Secnario"},
		"a number as a name":   {"name: x/a", "name: 7"},
		"no topology":          {"topology:", "description: t\n  topologie:"},
		"a file with a number": {"expect: {default: allow}", "expect: {default: allow}\n      apply: [7]"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(minimal, tweak[0], tweak[1], 1)
			require.NotEqual(t, minimal, text, "the tweak changes nothing")
			c := &collector{}
			docs := parse("scenario.yaml", []byte(text), c)
			require.Empty(t, c.problems)
			require.Len(t, docs, 1)
			assert.NotEmpty(t, conforms(schema, docs[0].root.plainValue(), ""))
			assert.NotEmpty(t, problemsOf(t, map[string]string{"scenario.yaml": text}))
		})
	}
	c := &collector{}
	docs := parse("scenario.yaml", []byte(minimal), c)
	assert.Empty(t, conforms(schema, docs[0].root.plainValue(), ""), "without a tweak it fits")
}
