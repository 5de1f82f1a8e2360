package engine

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeyChangesWithEverythingThatIsCompiled(t *testing.T) {
	tc := toolchain{settings: map[string]string{"GOVERSION": "go1.26.8"}}
	keyOf := func(s spec, tc toolchain) string {
		source, err := sourceDigest(s)
		require.NoError(t, err)
		return key(source, tc.identity())
	}
	original := keyOf(helloSpec(), tc)
	require.Equal(t, original, keyOf(helloSpec(), tc), "the same input gives the same key")

	changes := map[string]func(*spec){
		"go.mod":         withFile("go.mod.txt", "module netproof.dev/test/hello\n\ngo 1.26.1\n"),
		"go.sum":         withFile("go.sum.txt", "x v1.0.0 h1:abc=\n"),
		"a further file": withFile("sub/go.mod.txt", ""),
		"version":        func(s *spec) { s.version = "v1.0.1" },
		"package":        func(s *spec) { s.programs[0].pkg += "/v2" },
		"name of file":   func(s *spec) { s.programs[0].file = "welcomer" },
		"alias":          func(s *spec) { s.aliases = map[string]string{"greeter-ipam": "other"} },
		"data":           func(s *spec) { s.data[0].path = "other.txt" },
		"link flags":     func(s *spec) { s.ldflags = nil },
		"build tags":     func(s *spec) { s.tags = []string{"tag"} },
	}
	seen := map[string]string{original: "nothing"}
	for what, change := range changes {
		got := keyOf(helloSpec(change), tc)
		assert.NotContains(t, seen, got, "%s gives the same key as %s", what, seen[got])
		seen[got] = what
	}
	for name, value := range map[string]string{"GOVERSION": "go1.26.9", "GOAMD64": "v3", "GOEXPERIMENT": "x", "GOTOOLCHAIN": "local"} {
		settings := maps.Clone(tc.settings)
		settings[name] = value
		got := keyOf(helloSpec(), toolchain{settings: settings})
		assert.NotContains(t, seen, got, name)
		seen[got] = name
	}
	settings := maps.Clone(tc.settings)
	settings["GOMODCACHE"] = "/elsewhere"
	assert.Equal(t, original, keyOf(helloSpec(), toolchain{path: "/opt/go/bin/go", settings: settings}),
		"where things lie does not matter")
}

func TestStatusTellsWhatIsBuilt(t *testing.T) {
	cacheDir := t.TempDir()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	require.NoError(t, set.Close())
	states, err := status(t.Context(), []spec{helloSpec(), needySpec()}, cacheDir)
	require.NoError(t, err)
	require.Len(t, states, 2)
	assert.True(t, states[0].Built)
	assert.Equal(t, set.Dirs()["hello"], states[0].Path)
	info, err := os.Stat(set.Path("greeter"))
	require.NoError(t, err)
	assert.Greater(t, states[0].Size, info.Size(), "both programs count")
	assert.Less(t, states[0].Size, 3*info.Size(), "an alias is no further copy")
	assert.False(t, states[0].BuiltAt.IsZero())
	assert.Equal(t, State{Engine: "needy", Version: "v2.0.0"}, states[1])
}

func TestListTellsWhatIsBuildingAndWhatIsDamaged(t *testing.T) {
	one := func(t *testing.T, cacheDir string) Cached {
		t.Helper()
		found, err := list(t.Context(), []spec{helloSpec()}, cacheDir)
		require.NoError(t, err)
		require.Len(t, found, 1)
		return found[0]
	}
	cacheDir, dir := built(t)
	whole := one(t, cacheDir)
	assert.True(t, whole.Current)
	assert.Empty(t, whole.Damage)
	assert.False(t, whole.Building)

	for name, damage := range map[string]func(t *testing.T, dir string){
		"a program is gone":       func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "other"))) },
		"a program was exchanged": func(t *testing.T, dir string) { exchange(t, filepath.Join(dir, "greeter")) },
		"the manifest is gone":    func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, manifestFile))) },
	} {
		t.Run(name, func(t *testing.T) {
			cacheDir, dir := built(t)
			damage(t, dir)
			got := one(t, cacheDir)
			assert.Contains(t, got.Damage, dir)
			assert.Equal(t, "hello", got.Engine)
			assert.False(t, got.Building)
		})
	}

	// Whoever builds has the lock, first without a folder, then with one.
	held, err := tryLock(lockPath(dir), lockExclusive)
	require.NoError(t, err)
	require.NotNil(t, held)
	assert.True(t, one(t, cacheDir).Building)
	require.NoError(t, os.RemoveAll(dir))
	waiting := one(t, cacheDir)
	assert.True(t, waiting.Building)
	assert.Equal(t, "v1.0.0", waiting.Version)
	assert.Empty(t, waiting.Path)
	require.NoError(t, os.Mkdir(buildingDir(dir), 0o755))
	assert.True(t, one(t, cacheDir).Building)
	require.NoError(t, held.release())
	left := one(t, cacheDir)
	assert.False(t, left.Building)
	assert.True(t, left.Remains)
}

func TestStatusMakesNoFolder(t *testing.T) {
	cacheDir := filepath.Join(t.TempDir(), "cache")
	_, err := status(t.Context(), []spec{helloSpec()}, cacheDir)
	require.NoError(t, err)
	assert.NoDirExists(t, cacheDir)
}

func TestPruneRemovesOnlyWhatNobodyNeeds(t *testing.T) {
	cacheDir := t.TempDir()
	build := func(s spec) *Engines {
		set, err := ensure(t.Context(), []spec{s}, Options{CacheDir: cacheDir})
		require.NoError(t, err)
		return set
	}
	version := func(v string) func(*spec) { return func(s *spec) { s.version = v } }
	current := build(helloSpec())
	old := build(helloSpec(version("v0.8.0")))
	inUse := build(helloSpec(version("v0.9.0")))
	require.NoError(t, current.Close())
	require.NoError(t, old.Close())
	remains := filepath.Join(cacheDir, buildingPrefix+"hello-0123456789abcdef")
	require.NoError(t, os.MkdirAll(filepath.Join(remains, "src"), 0o755))
	foreign := filepath.Join(cacheDir, "not-an-engine")
	require.NoError(t, os.MkdirAll(foreign, 0o755))

	removed, err := prune(t.Context(), []spec{helloSpec()}, PruneOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	var paths []string
	for _, r := range removed {
		if !r.InUse {
			paths = append(paths, r.Path)
		}
	}
	assert.ElementsMatch(t, []string{old.Dirs()["hello"], remains}, paths)
	assert.NoDirExists(t, remains)
	assert.NoDirExists(t, old.Dirs()["hello"])
	assert.NoFileExists(t, lockPath(old.Dirs()["hello"]))
	assert.DirExists(t, current.Dirs()["hello"])
	assert.DirExists(t, inUse.Dirs()["hello"], "held by somebody")
	assert.DirExists(t, foreign)

	require.NoError(t, inUse.Close())
	removed, err = prune(t.Context(), []spec{helloSpec()}, PruneOptions{CacheDir: cacheDir})
	require.NoError(t, err)
	require.Len(t, removed, 1, "let go of, it goes")
	assert.Positive(t, removed[0].Size)
}

func TestLockOnARemovedFileIsNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := tryLock(path, lockExclusive)
	require.NoError(t, err)
	require.NotNil(t, first)
	busy, err := tryLock(path, lockShared)
	require.NoError(t, err)
	assert.Nil(t, busy, "one exclusive holder at a time")

	require.NoError(t, os.Remove(path)) // as Prune does while it holds the lock
	second, err := tryLock(path, lockExclusive)
	require.NoError(t, err)
	require.NotNil(t, second)
	same, err := stillNamed(first.file, path)
	require.NoError(t, err)
	assert.False(t, same)
	require.NoError(t, first.release())
	require.NoError(t, second.release())
}

func TestSharedLocksGoTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	exclusive, err := tryLock(path, lockExclusive)
	require.NoError(t, err)
	require.NoError(t, exclusive.share())
	shared, err := tryLock(path, lockShared)
	require.NoError(t, err)
	require.NotNil(t, shared)
	none, err := tryLock(path, lockExclusive)
	require.NoError(t, err)
	assert.Nil(t, none)
	require.NoError(t, exclusive.release())
	require.NoError(t, shared.release())
}

func TestOnlyEngineFoldersAreTakenForEngines(t *testing.T) {
	for name, want := range map[string]bool{
		"hello-0123456789abcdef":      true,
		"kube-proxy-0123456789abcdef": true,
		"hello":                       false,
		"hello-0123":                  false,
		"-0123456789abcdef":           false,
		"hello-0123456789abcdeg":      false,
		"hello-0123456789abcdef.lock": false,
	} {
		assert.Equal(t, want, isEngineName(name), name)
	}
}

// prebuilt writes programs that answer like the real ones.
func prebuilt(t *testing.T, dir string, names ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		script := "#!/bin/sh\n[ -z \"${CNI_COMMAND:-}\" ] || exit 1\necho \"Something Version: 3.99.7-rc.1 (go1.26)\"\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
}

func TestEngineDirGivesPrebuiltPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CNI_COMMAND", "ADD")
	prebuilt(t, dir, "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy")
	prebuilt(t, filepath.Join(dir, CNIPlugins), "host-local", "loopback", "ptp")
	set, err := Ensure(t.Context(), Options{CNI: "none", EngineDir: dir, CacheDir: "/nonexistent"})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "etcd"), set.Path("etcd"))
	assert.Equal(t, filepath.Join(dir, CNIPlugins, "ptp"), set.Path("ptp"))
	assert.Equal(t, "v3.99.7-rc.1", set.Version(Etcd), "the version is what the program says, not what netproof pins")
	crds, err := set.CRDs()
	require.NoError(t, err)
	assert.Nil(t, crds)
	assert.False(t, set.Has("calico-node"))
	assert.NoError(t, set.Close())
}

func TestEngineDirNamesEverythingThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	prebuilt(t, dir, "etcd", "kube-apiserver", "calico", "calico-node")
	require.NoError(t, os.Chmod(filepath.Join(dir, "calico"), 0o644))
	_, err := Ensure(t.Context(), Options{CNI: "calico", EngineDir: dir})
	var missing *MissingError
	require.ErrorAs(t, err, &missing)
	assert.ElementsMatch(t,
		[]string{"kube-controller-manager", "kube-proxy", "calico", "calico-ipam", "calico-crds.yaml", "host-local", "loopback", "ptp"}, missing.Files)
	assert.Contains(t, err.Error(), "calico: not executable (chmod +x "+filepath.Join(dir, "calico")+")")
	assert.Contains(t, err.Error(), "kube-proxy: not there (engine kubernetes "+KubernetesVersion+")")
}

func TestEngineDirRefusesWhatCannotRunHere(t *testing.T) {
	dir := t.TempDir()
	prebuilt(t, dir, "kube-apiserver", "kube-controller-manager", "kube-proxy", "host-local", "loopback", "ptp")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etcd"), []byte("\x7fELF of another machine"), 0o755))
	_, err := Ensure(t.Context(), Options{CNI: "none", EngineDir: dir})
	require.Error(t, err)
	assert.Contains(t, err.Error(), filepath.Join(dir, "etcd"))
}

func TestEngineDirMustBeAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, dir := range []string{file, file + "-absent"} {
		_, err := Ensure(t.Context(), Options{CNI: "calico", EngineDir: dir})
		require.Error(t, err)
		assert.Contains(t, err.Error(), dir)
	}
}

func TestPinsAreWhatTheModulesRequire(t *testing.T) {
	gomod := func(name string) string {
		content, err := fs.ReadFile(moduleFiles(name), "go.mod.txt")
		require.NoError(t, err)
		return string(content)
	}
	assert.Contains(t, gomod(Kubernetes), "\tk8s.io/kubernetes "+KubernetesVersion)
	assert.Contains(t, gomod(Etcd), "\tgo.etcd.io/etcd/server/v3 "+etcdVersion)
	assert.Contains(t, gomod(CNIPlugins), "\tgithub.com/containernetworking/plugins "+CNIPluginsVersion)
	// Calico has no module versions: this commit is the one its v3.30.1 tag names.
	assert.Contains(t, gomod(Calico), "\tgithub.com/projectcalico/calico v0.0.0-20250529224300-393b14e729a6")

	staging := strings.Replace(KubernetesVersion, "v1.", "v0.", 1)
	replaced := 0
	for line := range strings.Lines(gomod(Kubernetes)) {
		if path, version, ok := strings.Cut(strings.TrimSpace(line), " => "); ok {
			assert.Equal(t, path+" "+staging, version)
			replaced++
		}
	}
	assert.Equal(t, 33, replaced, "all staging modules of Kubernetes are of one release")
}

func TestEveryModuleHasChecksums(t *testing.T) {
	for _, s := range specs() {
		gosum, err := fs.ReadFile(s.files, "go.sum.txt")
		require.NoError(t, err)
		for _, p := range s.programs {
			gomod, err := fs.ReadFile(s.files, "go.mod.txt")
			require.NoError(t, err)
			assert.Contains(t, string(gomod), p.pkg, "go.mod of %s keeps what %s needs", s.name, p.file)
		}
		assert.Greater(t, strings.Count(string(gosum), "\n"), 20, s.name)
	}
}

func TestEnginesOfANetworkPlugin(t *testing.T) {
	names := func(cni string) []string {
		chosen, err := specsFor(cni)
		require.NoError(t, err)
		var list []string
		for _, s := range chosen {
			list = append(list, s.name)
		}
		return list
	}
	assert.Equal(t, []string{Etcd, Kubernetes, Calico, CNIPlugins}, names("calico"))
	assert.Equal(t, []string{Etcd, Kubernetes, CNIPlugins}, names("none"))
}
