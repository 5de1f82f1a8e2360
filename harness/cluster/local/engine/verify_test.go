package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// built makes a cache with the engine of the tests, and gives the folder of the cache and that of the engine.
func built(t *testing.T) (cacheDir, dir string) {
	t.Helper()
	cacheDir = t.TempDir()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	dir = set.Dirs()["hello"]
	require.NoError(t, set.Close())
	return cacheDir, dir
}

// exchange puts something else of the same size into the place of a program, as somebody would who wants it to be run.
func exchange(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	script := append([]byte("#!/bin/sh\necho exchanged\nexit 0\n"), make([]byte, info.Size())...)[:info.Size()]
	require.NoError(t, os.WriteFile(path, script, 0o755))
}

func TestAProgramThatWasExchangedIsNotRunButBuiltAgain(t *testing.T) {
	cacheDir, dir := built(t)
	program := filepath.Join(dir, "greeter")
	before, err := os.ReadFile(program)
	require.NoError(t, err)
	exchange(t, program)
	require.True(t, isComplete(helloSpec(), dir), "its size tells nothing")

	seen := newEvents()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
	require.NoError(t, err)
	after, err := os.ReadFile(set.Path("greeter"))
	require.NoError(t, err)
	assert.Equal(t, before, after)
	assert.Contains(t, seen.stages(), Damaged)
	require.NoError(t, set.Close())
}

func TestAProgramThatWasExchangedIsRefusedWhereItCannotBeBuilt(t *testing.T) {
	cacheDir, dir := built(t)
	exchange(t, filepath.Join(dir, "other"))
	hideGo(t)
	_, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	var tampered *TamperedError
	require.ErrorAs(t, err, &tampered)
	assert.Equal(t, filepath.Join(dir, "other"), tampered.Path)
}

func TestAnEngineThatRunsElsewhereIsNotBuiltAgainBelowIt(t *testing.T) {
	cacheDir, dir := built(t)
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	exchange(t, filepath.Join(dir, "greeter"))
	_, err = ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.ErrorContains(t, err, "end the runs and clusters that use it")
	require.NoError(t, set.Close())
}

func TestALinkInThePlaceOfAProgramIsNotFollowed(t *testing.T) {
	cacheDir, dir := built(t)
	program := filepath.Join(dir, "greeter")
	content, err := os.ReadFile(program)
	require.NoError(t, err)
	elsewhere := filepath.Join(t.TempDir(), "greeter")
	require.NoError(t, os.WriteFile(elsewhere, content, 0o755))
	require.NoError(t, os.Remove(program))
	require.NoError(t, os.Symlink(elsewhere, program))
	hideGo(t)
	_, err = ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	var tampered *TamperedError
	require.ErrorAs(t, err, &tampered)
	assert.Contains(t, tampered.Reason, "it leads to")
}

// withoutDigests makes a manifest one of a netproof that did not verify engines.
func withoutDigests(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, manifestFile)
	m, err := readManifest(dir)
	require.NoError(t, err)
	m.Digests = nil
	content, err := json.Marshal(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, content, 0o644))
}

func TestAnEngineOfAnOlderNetproofIsAdoptedOnce(t *testing.T) {
	cacheDir, dir := built(t)
	withoutDigests(t, dir)
	spied := newSpiedGo(t, false)
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	require.NoError(t, set.Close())
	assert.Zero(t, spied.builds(t), "nobody waits for a build")
	m, err := readManifest(dir)
	require.NoError(t, err)
	assert.Len(t, m.Digests["greeter"], 64)

	exchange(t, filepath.Join(dir, "greeter"))
	hideGo(t)
	_, err = ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	var tampered *TamperedError
	require.ErrorAs(t, err, &tampered)
}

func TestAnEngineOfAnOlderNetproofThatWasChangedSinceIsNotAdopted(t *testing.T) {
	cacheDir, dir := built(t)
	withoutDigests(t, dir)
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "greeter"), later, later))
	hideGo(t)
	_, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	var tampered *TamperedError
	require.ErrorAs(t, err, &tampered)
	assert.Contains(t, tampered.Reason, "it was written after the build")
}

func TestACacheThatOthersCanChangeIsRefused(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, cacheDir, dir string){
		"the cache is open to all":  func(t *testing.T, cacheDir, _ string) { require.NoError(t, os.Chmod(cacheDir, 0o777)) },
		"the engine is open to all": func(t *testing.T, _, dir string) { require.NoError(t, os.Chmod(dir, 0o757)) },
		"a program is open to all":  func(t *testing.T, _, dir string) { require.NoError(t, os.Chmod(filepath.Join(dir, "greeter"), 0o757)) },
		"a program is of somebody else": func(t *testing.T, _, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to give a file away")
			}
			require.NoError(t, os.Chown(filepath.Join(dir, "greeter"), 65534, -1))
		},
		"the cache is of somebody else": func(t *testing.T, cacheDir, _ string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to give a folder away")
			}
			require.NoError(t, os.Chown(cacheDir, 65534, -1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cacheDir, dir := built(t)
			open(t, cacheDir, dir)
			_, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
			var untrusted *UntrustedError
			require.ErrorAs(t, err, &untrusted)
			assert.Contains(t, err.Error(), "engine cache")
			assert.Contains(t, err.Error(), CacheEnv)
		})
	}
}

func TestAFolderOfEnginesThatOthersCanChangeIsRefusedUnrun(t *testing.T) {
	for _, open := range []string{".", "etcd", CNIPlugins, CNIPlugins + "/ptp"} {
		dir := t.TempDir()
		prebuilt(t, dir, "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy")
		prebuilt(t, filepath.Join(dir, CNIPlugins), "host-local", "loopback", "ptp")
		ran := filepath.Join(t.TempDir(), "ran")
		require.NoError(t, os.WriteFile(filepath.Join(dir, "etcd"), []byte("#!/bin/sh\necho >"+ran+"\n"), 0o755))
		require.NoError(t, os.Chmod(filepath.Join(dir, open), 0o777))
		_, err := Ensure(t.Context(), Options{CNI: "none", EngineDir: dir})
		var untrusted *UntrustedError
		require.ErrorAs(t, err, &untrusted, open)
		assert.NoFileExists(t, ran, open)
	}
}

func TestWhatWasVerifiedAMomentAgoIsNotReadAgain(t *testing.T) {
	cacheDir, dir := built(t)
	exchange(t, filepath.Join(dir, "greeter"))
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Verified: true})
	require.NoError(t, err, "the process inside a sandbox relies on the one that made it")
	require.NoError(t, set.Close())
}
