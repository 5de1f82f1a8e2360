package scenario

import (
	"testing"
	"testing/fstest"

	"errors"

	"github.com/stretchr/testify/require"
)

// minimal is the least that a scenario needs.
const minimal = `apiVersion: netproof.dev/v1alpha1
kind: Scenario
metadata: {name: minimal}
spec:
  topology:
    namespaces:
      - {name: x}
    pods:
      - {name: x/a, ports: [80/TCP]}
      - {name: x/b, ports: [80/TCP]}
  steps:
    - name: before any policy
      expect: {default: allow}
`

// load loads the files given by name and content; paths are the whole tree unless they are given.
func load(contents map[string]string, paths ...string) ([]*Scenario, error) {
	fsys := fstest.MapFS{}
	for name, text := range contents {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	return Load(paths, Options{FS: fsys})
}

// problemsOf returns the problems of files that must not load.
func problemsOf(t *testing.T, contents map[string]string, paths ...string) Problems {
	t.Helper()
	_, err := load(contents, paths...)
	var problems Problems
	require.True(t, errors.As(err, &problems), "want problems, have %v", err)
	return problems
}
