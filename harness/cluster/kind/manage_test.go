package kind

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
)

// fakeEngines makes PATH a folder of programs that go by these names and run these scripts.
func fakeEngines(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		text := "#!/bin/sh\n[ \"$1\" != -v ] || { echo " + name + " version 9.9; exit; }\n" + script
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	t.Setenv("PATH", dir)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

const (
	silentEngine = `echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?" >&2; exit 1`
	emptyEngine  = `case "$1 $2" in "network inspect") echo "Error: no such network: $3" >&2; exit 1 ;; esac`
	fullEngine   = `case "$1 $2" in
"network ls") echo 1 ;;
"network inspect") echo '[{"name":"netproof-c","labels":{"netproof.dev/cluster":"c"}}]' ;;
esac`
	brokenEngine = `echo "it has a bad day" >&2; exit 1`
)

func TestAClusterIsFoundWhicheverEngineItWasMadeWith(t *testing.T) {
	for other, script := range map[string]string{"one that does not answer": silentEngine, "one that has no such cluster": emptyEngine} {
		t.Run(other, func(t *testing.T) {
			fakeEngines(t, map[string]string{engine.Docker: script, engine.Podman: fullEngine})
			list, err := List(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, list, 1)
			assert.Equal(t, "c", list[0].Name)
			assert.Equal(t, engine.Podman, list[0].Engine)

			e, m, err := locate(t.Context(), "", "c")
			require.NoError(t, err)
			assert.Equal(t, engine.Podman, e.Name)
			assert.Equal(t, "c", m.name)

			_, _, err = locate(t.Context(), engine.Docker, "c")
			assert.Error(t, err, "the other one was asked for")
		})
	}
}

func TestAClusterThatNoEngineHasIsNotFound(t *testing.T) {
	fakeEngines(t, map[string]string{engine.Docker: silentEngine, engine.Podman: emptyEngine})
	_, _, err := locate(t.Context(), "", "c")
	require.ErrorIs(t, err, ErrNotFound)
	list, err := List(t.Context(), "")
	require.NoError(t, err)
	assert.Empty(t, list)
}

func TestWhereNoEngineAnswersNobodyKnowsOfClusters(t *testing.T) {
	for name, scripts := range map[string]map[string]string{
		"none is there": {}, "one does not answer": {engine.Podman: silentEngine}, "neither answers": {engine.Docker: silentEngine, engine.Podman: silentEngine},
	} {
		t.Run(name, func(t *testing.T) {
			fakeEngines(t, scripts)
			_, err := List(t.Context(), "")
			assert.True(t, engine.IsSilent(err), err)
			_, _, err = locate(t.Context(), "", "c")
			assert.True(t, engine.IsSilent(err), err)
		})
	}
	fakeEngines(t, map[string]string{engine.Docker: brokenEngine, engine.Podman: fullEngine})
	_, err := List(t.Context(), "")
	assert.ErrorContains(t, err, "it has a bad day", "what is not known is said")
}
