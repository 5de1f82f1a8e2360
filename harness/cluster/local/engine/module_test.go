package engine

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// helloModule is a module of somebody else that builds in a second.
func helloModule() Module {
	return Module{
		Name: "hello-module", Version: "v1.0.0", Files: os.DirFS("testdata/hello"),
		Programs: map[string]string{"other": "netproof.dev/test/hello/other", "greeter": "netproof.dev/test/hello"},
		Tags:     []string{"no_such_tag"},
		Data:     []ModuleData{{File: "sources.tar", Module: "netproof.dev/test/hello", Path: "other"}},
		LDFlags:  []string{"-X main.version=v1.0.0"},
	}
}

func TestModulesOfOthersAreBuiltLikeEngines(t *testing.T) {
	set, err := EnsureModules(t.Context(), []Module{helloModule()}, Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, set.Close()) }()
	assert.Equal(t, []string{"greeter", "other", "sources.tar"}, set.programs())

	content, err := os.ReadFile(set.Path("sources.tar"))
	require.NoError(t, err)
	h, err := tar.NewReader(bytes.NewReader(content)).Next()
	require.NoError(t, err)
	assert.Equal(t, "main.go", h.Name, "a folder becomes a tar file")
}

func TestAModuleThatIsNotWholeIsRefused(t *testing.T) {
	for what, change := range map[string]func(*Module){
		"name":             func(m *Module) { m.Name = "" },
		"version":          func(m *Module) { m.Version = "" },
		"files":            func(m *Module) { m.Files = nil },
		"programs":         func(m *Module) { m.Programs = nil },
		"an engine's name": func(m *Module) { m.Name = Kubernetes },
	} {
		m := helloModule()
		change(&m)
		_, err := EnsureModules(t.Context(), []Module{m}, Options{CacheDir: t.TempDir()})
		assert.ErrorContains(t, err, "module", what)
	}
}

func TestTheOrderOfProgramsDoesNotChangeTheKey(t *testing.T) {
	digest := func() string {
		s, err := helloModule().spec()
		require.NoError(t, err)
		source, err := sourceDigest(s)
		require.NoError(t, err)
		return source
	}
	first := digest()
	for range 20 { // a map gives its entries in another order each time
		assert.Equal(t, first, digest())
	}
}

func TestTagsEnterTheBuildOnlyWhereThereAreAny(t *testing.T) {
	assert.NotContains(t, buildFlags(helloSpec()), "-tags=")
	assert.Contains(t, buildFlags(helloSpec(func(s *spec) { s.tags = []string{"a", "b"} })), "-tags=a,b")
	without, err := sourceDigest(helloSpec())
	require.NoError(t, err)
	empty, err := sourceDigest(helloSpec(func(s *spec) { s.tags = []string{} }))
	require.NoError(t, err)
	assert.Equal(t, without, empty, "engines without tags keep their keys")
}
