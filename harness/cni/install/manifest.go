package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// decode reads the objects of a YAML stream; what names the stream in errors. Lists are taken apart.
func decode(what string, stream []byte) ([]*unstructured.Unstructured, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	var objects []*unstructured.Unstructured
	for document := 1; ; document++ {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read document %d of %s: %w", document, what, err)
		}
		found, err := decodeDocument(text)
		if err != nil {
			return nil, fmt.Errorf("read document %d of %s: %w", document, what, err)
		}
		objects = append(objects, found...)
	}
}

func decodeDocument(text []byte) ([]*unstructured.Unstructured, error) {
	content, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	if string(content) == "null" {
		return nil, nil
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(content); err != nil {
		return nil, err
	}
	if object.IsList() {
		list, err := object.ToList()
		if err != nil {
			return nil, err
		}
		var objects []*unstructured.Unstructured
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
		return objects, nil
	}
	if object.GetName() == "" {
		return nil, fmt.Errorf("a %s has no name", object.GetKind())
	}
	return []*unstructured.Unstructured{object}, nil
}

// SetEnv sets an environment variable of a container of the DaemonSets among the objects, and says what it changed. An
// empty container is every container that has such a variable already. Nothing changed means that there is no such
// container.
func SetEnv(objects []*unstructured.Unstructured, container, variable, value string) (changes []string) {
	for _, object := range objects {
		for _, c := range containersOf(object) {
			name, _ := c["name"].(string)
			old, has := envOf(c, variable)
			if name != container && (container != "" || !has) {
				continue
			}
			putEnv(c, variable, value)
			change := fmt.Sprintf("%s, container %s: %s=%s", nameOf(object), name, variable, value)
			if has {
				change += " instead of " + old
			}
			changes = append(changes, change)
		}
	}
	return changes
}

// containersOf are the containers of a DaemonSet, init containers first.
func containersOf(object *unstructured.Unstructured) []map[string]any {
	if object.GetKind() != "DaemonSet" {
		return nil
	}
	var containers []map[string]any
	for _, field := range []string{"initContainers", "containers"} {
		// Not the typed accessor, which copies.
		value, _, err := unstructured.NestedFieldNoCopy(object.Object, "spec", "template", "spec", field)
		items, ok := value.([]any)
		if err != nil || !ok {
			continue
		}
		for _, item := range items {
			if c, ok := item.(map[string]any); ok {
				containers = append(containers, c)
			}
		}
	}
	return containers
}

// envOf says what a variable of a container is set to.
func envOf(container map[string]any, variable string) (value string, ok bool) {
	entries, _ := container["env"].([]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		if entry["name"] != variable {
			continue
		}
		if _, elsewhere := entry["valueFrom"]; elsewhere {
			return "a value from elsewhere", true
		}
		text, _ := entry["value"].(string)
		return fmt.Sprintf("%q", text), true
	}
	return "", false
}

// putEnv replaces a variable where it stands, or adds it at the end.
func putEnv(container map[string]any, variable, value string) {
	set := map[string]any{"name": variable, "value": value}
	entries, _ := container["env"].([]any)
	for i, e := range entries {
		if entry, _ := e.(map[string]any); entry["name"] == variable {
			entries[i] = set
			return
		}
	}
	container["env"] = append(entries, set)
}

// setAll does what the user asked for about a manifest.
func setAll(objects []*unstructured.Unstructured, settings []string) ([]string, error) {
	var changes []string
	for _, s := range settings {
		target, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("set %q: it is neither CONTAINER/NAME=VALUE nor NAME=VALUE", s)
		}
		container, variable, named := strings.Cut(target, "/")
		if !named {
			container, variable = "", target
		}
		if variable == "" || named && container == "" {
			return nil, fmt.Errorf("set %q: it is neither CONTAINER/NAME=VALUE nor NAME=VALUE", s)
		}
		made := SetEnv(objects, container, variable, value)
		if len(made) == 0 {
			return nil, noMatch(objects, s, container, variable)
		}
		changes = append(changes, made...)
	}
	return changes, nil
}

// noMatch says what there is, when a setting fits nothing.
func noMatch(objects []*unstructured.Unstructured, setting, container, variable string) error {
	names := map[string]bool{}
	for _, object := range objects {
		for _, c := range containersOf(object) {
			if name, ok := c["name"].(string); ok {
				names[name] = true
			}
		}
	}
	have := strings.Join(slices.Sorted(maps.Keys(names)), ", ")
	switch {
	case have == "":
		return fmt.Errorf("set %q: the manifest has no DaemonSet whose containers could be set anything", setting)
	case container != "":
		return fmt.Errorf("set %q: no DaemonSet has a container %s; there are %s", setting, container, have)
	default:
		return fmt.Errorf("set %q: no container of a DaemonSet has a variable %s; to add it, say which container gets it, as in CONTAINER/%s=...; there are %s",
			setting, variable, variable, have)
	}
}
