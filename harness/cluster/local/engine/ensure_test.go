package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// helloSpec is an engine that builds in a second.
func helloSpec(tweaks ...func(*spec)) spec {
	s := spec{
		name: "hello", version: "v1.0.0", files: os.DirFS("testdata/hello"),
		programs: []program{
			{"greeter", "netproof.dev/test/hello", []string{"-v"}},
			{"other", "netproof.dev/test/hello/other", nil},
		},
		aliases: map[string]string{"greeter-ipam": "greeter"},
		data:    []dataFile{{"notice", "netproof.dev/test/hello", "notice.txt"}},
		ldflags: []string{"-X main.version=v1.0.0"},
	}
	for _, tweak := range tweaks {
		tweak(&s)
	}
	return s
}

// withFile adds a file to the module of an engine, or gives one of its files another content.
func withFile(name, content string) func(*spec) {
	return func(s *spec) {
		files := fstest.MapFS{}
		err := fs.WalkDir(s.files, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			old, err := fs.ReadFile(s.files, path)
			files[path] = &fstest.MapFile{Data: old}
			return err
		})
		if err != nil {
			panic(err)
		}
		files[name] = &fstest.MapFile{Data: []byte(content)}
		s.files = files
	}
}

// events collects what a build reports.
type events struct {
	mu   sync.Mutex
	list []Event
	seen chan Event
}

func newEvents() *events { return &events{seen: make(chan Event, 1000)} }

func (e *events) add(event Event) {
	e.mu.Lock()
	e.list = append(e.list, event)
	e.mu.Unlock()
	e.seen <- event
}

func (e *events) stages() []Stage {
	e.mu.Lock()
	defer e.mu.Unlock()
	var stages []Stage
	for _, event := range e.list {
		if len(stages) == 0 || stages[len(stages)-1] != event.Stage {
			stages = append(stages, event.Stage)
		}
	}
	return stages
}

// await reads events until one of the stage comes.
func (e *events) await(t *testing.T, stage Stage) Event {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case event := <-e.seen:
			if event.Stage == stage {
				return event
			}
		case <-timeout:
			t.Fatalf("no event of stage %v", stage)
		}
	}
}

// spiedGo is a go command that notes its calls and, for `go build`, first waits until the test lets it, with a child
// beside it as the real one has compilers.
type spiedGo struct {
	dir string
	// gate is a FIFO: `go build` reads from it before it begins.
	gate string
}

func newSpiedGo(t *testing.T, gated bool) spiedGo {
	t.Helper()
	real, err := exec.LookPath("go")
	require.NoError(t, err)
	s := spiedGo{dir: t.TempDir()}
	wait := ""
	if gated {
		s.gate = filepath.Join(s.dir, "gate")
		require.NoError(t, exec.Command("mkfifo", "-m", "600", s.gate).Run())
		wait = fmt.Sprintf("sleep 600 >/dev/null 2>&1 & echo $$ $! >%s/pids; read line <%s; kill $!", s.dir, s.gate)
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"$1\" >>%s/calls\nif [ \"$1\" = build ]; then :; %s\nfi\nexec %s \"$@\"\n", s.dir, wait, real)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "go"), []byte(script), 0o700))
	t.Setenv("PATH", s.dir+":"+os.Getenv("PATH"))
	return s
}

func (s spiedGo) open(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.gate, []byte("\n"), 0o600))
}

func (s spiedGo) builds(t *testing.T) int {
	t.Helper()
	calls, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	require.NoError(t, err)
	return strings.Count(string(calls), "build\n")
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

func TestEnsureBuildsAWholeEngine(t *testing.T) {
	cacheDir, seen := t.TempDir(), newEvents()
	// Source that Go's build cache has never seen, so that there is something to compile.
	source, err := os.ReadFile("testdata/hello/main.go.txt")
	require.NoError(t, err)
	unique := fmt.Sprintf("%s\nconst unique = %q\n", source, cacheDir)
	s := helloSpec(withFile("main.go.txt", unique), withFile("other/main.go.txt", unique))
	set, err := ensure(t.Context(), []spec{s}, Options{CacheDir: cacheDir, Progress: seen.add})
	require.NoError(t, err)
	defer func() { assert.NoError(t, set.Close()) }()

	assert.Equal(t, []string{"greeter", "greeter-ipam", "notice", "other"}, set.programs())
	assert.Equal(t, "v1.0.0", set.Version("hello"))
	for _, name := range []string{"greeter", "greeter-ipam", "other"} {
		out, err := exec.CommandContext(t.Context(), set.Path(name)).CombinedOutput()
		require.NoError(t, err)
		assert.Equal(t, "hello v1.0.0\n", string(out), "the version is linked into %s", name)
	}
	notice, err := os.ReadFile(set.Path("notice"))
	require.NoError(t, err)
	assert.Equal(t, "a data file\n", string(notice))

	dir := filepath.Base(set.Dirs()["hello"])
	assert.Equal(t, []string{dir, dir + ".lock"}, entries(t, cacheDir), "nothing but the engine and its lock stays")
	stages := seen.stages()
	assert.Equal(t, []Stage{Downloading, Compiling, Linking, Ready}, stages)
	last := seen.list[len(seen.list)-1]
	assert.False(t, last.Cached)
	assert.Equal(t, set.Dirs()["hello"], last.Path)
}

func TestSecondEnsureBuildsNothing(t *testing.T) {
	spied, cacheDir, seen := newSpiedGo(t, false), t.TempDir(), newEvents()
	for range 2 {
		set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
		require.NoError(t, err)
		require.NoError(t, set.Close())
	}
	assert.Equal(t, 1, spied.builds(t))
	last := seen.list[len(seen.list)-1]
	assert.Equal(t, Ready, last.Stage)
	assert.True(t, last.Cached)
}

func TestTwoRunsAtOnceBuildOnceAndTheSecondSaysThatItWaits(t *testing.T) {
	spied, cacheDir := newSpiedGo(t, true), t.TempDir()
	type result struct {
		set *Engines
		err error
	}
	results := make(chan result, 2)
	run := func(seen *events) {
		set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
		results <- result{set, err}
	}
	first, second := newEvents(), newEvents()
	go run(first)
	first.await(t, Compiling)
	go run(second)
	waiting := second.await(t, Waiting)
	assert.Equal(t, "another run that is building it", waiting.Detail)
	spied.open(t)
	var sets []*Engines
	for range 2 {
		r := <-results
		require.NoError(t, r.err)
		sets = append(sets, r.set)
	}
	assert.Equal(t, 1, spied.builds(t))
	assert.Equal(t, sets[0].Path("greeter"), sets[1].Path("greeter"))
	assert.Equal(t, []Stage{Waiting, Ready}, second.stages(), "the second is content with what the first built, while that one still uses it")
	for _, set := range sets {
		require.NoError(t, set.Close())
	}
}

func TestInterruptionStopsEveryProcessAndLeavesNothing(t *testing.T) {
	spied, cacheDir, seen := newSpiedGo(t, true), t.TempDir(), newEvents()
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("the user pressed Ctrl-C")
	done := make(chan error, 1)
	go func() {
		_, err := ensure(ctx, []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
		done <- err
	}()
	seen.await(t, Compiling)
	var pids []string
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(filepath.Join(spied.dir, "pids"))
		pids = strings.Fields(string(content))
		return err == nil && len(pids) == 2
	}, time.Minute, time.Millisecond)
	cancel(stopped)
	require.ErrorIs(t, <-done, stopped)

	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		require.NoError(t, err)
		assert.Eventually(t, func() bool { return isGone(pid) }, 10*time.Second, time.Millisecond, "process %d", pid)
	}
	for _, name := range entries(t, cacheDir) {
		assert.True(t, strings.HasSuffix(name, ".lock"), "%s was left", name)
	}

	go func() {
		set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
		if err == nil {
			err = set.Close()
		}
		done <- err
	}()
	spied.open(t)
	assert.NoError(t, <-done, "a later run builds as if nothing had been")
}

// isGone says whether a process has ended; one that waits to be reaped by init has.
func isGone(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil {
		return true
	}
	defer func() { _ = process.Release() }()
	if errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestSilentBuildKeepsSayingThatItIsAtWork(t *testing.T) {
	spied, seen := newSpiedGo(t, true), newEvents()
	done := make(chan error, 1)
	go func() {
		set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: t.TempDir(), Progress: seen.add})
		if err == nil {
			err = set.Close()
		}
		done <- err
	}()
	first := seen.await(t, Compiling)
	later := seen.await(t, Compiling) // the compiler waits at the gate: nothing new has happened
	assert.Equal(t, first.Done, later.Done)
	assert.Greater(t, later.Elapsed, first.Elapsed)
	spied.open(t)
	assert.NoError(t, <-done)
}

func TestInterruptionWhileWaitingForAnotherRun(t *testing.T) {
	cacheDir, seen := t.TempDir(), newEvents()
	tc, err := findToolchain(t.Context())
	require.NoError(t, err)
	dir, err := cache{cacheDir}.engineDir(helloSpec(), tc)
	require.NoError(t, err)
	held, err := tryLock(lockPath(dir), lockExclusive)
	require.NoError(t, err)
	require.NotNil(t, held)
	defer func() { assert.NoError(t, held.release()) }()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := ensure(ctx, []spec{helloSpec()}, Options{CacheDir: cacheDir, Progress: seen.add})
		done <- err
	}()
	seen.await(t, Waiting)
	cancel()
	assert.ErrorIs(t, <-done, context.Canceled)
}

func TestRemainsOfAKilledBuildAreNeitherUsedNorKept(t *testing.T) {
	cacheDir := t.TempDir()
	tc, err := findToolchain(t.Context())
	require.NoError(t, err)
	dir, err := cache{cacheDir}.engineDir(helloSpec(), tc)
	require.NoError(t, err)
	// A build that was killed before it got to its manifest, in both places it could be found.
	for _, place := range []string{dir, filepath.Join(buildingDir(dir), "out")} {
		require.NoError(t, os.MkdirAll(place, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(place, "greeter"), []byte("half"), 0o755))
	}
	require.False(t, isComplete(helloSpec(), dir))
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	require.NoError(t, set.Close())
	assert.True(t, isComplete(helloSpec(), dir))
	assert.NoDirExists(t, buildingDir(dir))
}

func TestEngineThatLostAFileIsBuiltAgain(t *testing.T) {
	damages := map[string]func(dir string) error{
		"a program is gone":        func(dir string) error { return os.Remove(filepath.Join(dir, "greeter")) },
		"a program was cut short":  func(dir string) error { return os.Truncate(filepath.Join(dir, "other"), 7) },
		"the manifest is gone":     func(dir string) error { return os.Remove(filepath.Join(dir, manifestFile)) },
		"the manifest is not JSON": func(dir string) error { return os.Truncate(filepath.Join(dir, manifestFile), 9) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			cacheDir := t.TempDir()
			for range 2 {
				set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
				require.NoError(t, err)
				dir := set.Dirs()["hello"]
				require.True(t, isComplete(helloSpec(), dir))
				require.NoError(t, set.Close())
				require.NoError(t, damage(dir))
				require.False(t, isComplete(helloSpec(), dir))
			}
		})
	}
}

func TestFailureOfOneEngineStopsTheOthers(t *testing.T) {
	newSpiedGo(t, true) // the build of the good engine waits for a gate that nobody opens
	t.Setenv("GOPROXY", "off")
	cacheDir := t.TempDir()
	_, err := ensure(t.Context(), []spec{helloSpec(), needySpec()}, Options{CacheDir: cacheDir})
	var failed *BuildError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, "needy", failed.Engine)
	for _, name := range entries(t, cacheDir) {
		assert.True(t, strings.HasSuffix(name, ".lock"), "%s was left", name)
	}
}

// needySpec is an engine that needs a module which exists nowhere.
func needySpec() spec {
	return spec{
		name: "needy", version: "v2.0.0", files: os.DirFS("testdata/needy"),
		programs: []program{{"needy", "netproof.dev/test/needy", nil}},
	}
}

func TestBuildWithoutNetworkSaysWhatToDo(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	_, err := ensure(t.Context(), []spec{needySpec()}, Options{CacheDir: t.TempDir()})
	var failed *BuildError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, "download modules", failed.Step)
	message := err.Error()
	for _, text := range []string{"engine needy v2.0.0", "GOPROXY", "netproof engines import"} {
		assert.Contains(t, message, text)
	}
}

func TestCompilerErrorIsShown(t *testing.T) {
	files := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(files, "go.mod.txt"), []byte("module netproof.dev/test/broken\n\ngo 1.26.0\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(files, "main.go.txt"), []byte("package main\n\nfunc main() { missing() }\n"), 0o600))
	s := spec{
		name: "broken", version: "v0.0.1", files: os.DirFS(files),
		programs: []program{{"broken", "netproof.dev/test/broken", nil}},
	}
	_, err := ensure(t.Context(), []spec{s}, Options{CacheDir: t.TempDir()})
	var failed *BuildError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, "compile", failed.Step)
	assert.Contains(t, err.Error(), "undefined: missing")
}

func TestWithoutGoOnlyWhatIsBuiltCanBeUsed(t *testing.T) {
	cacheDir := t.TempDir()
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	built := set.Path("greeter")
	require.NoError(t, set.Close())

	hideGo(t)
	set, err = ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: cacheDir})
	require.NoError(t, err)
	assert.Equal(t, built, set.Path("greeter"))
	require.NoError(t, set.Close())

	_, err = ensure(t.Context(), []spec{helloSpec(), needySpec()}, Options{CacheDir: cacheDir})
	require.ErrorIs(t, err, ErrNoGo)
	assert.Contains(t, err.Error(), "build engines needy v2.0.0")
	assert.Contains(t, err.Error(), "https://go.dev/doc/install")
}

func hideGo(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	before := goFallbacks
	t.Cleanup(func() { goFallbacks = before })
	goFallbacks = nil
}

func TestEnsureRefusesANetworkPluginItDoesNotHave(t *testing.T) {
	_, err := Ensure(t.Context(), Options{CNI: "flannel", CacheDir: t.TempDir()})
	require.ErrorIs(t, err, ErrUnknownCNI)
	assert.Contains(t, err.Error(), `"flannel"`)
}

func TestCacheFolderFollowsTheEnvironment(t *testing.T) {
	t.Setenv(CacheEnv, "/somewhere")
	dir, err := DefaultCacheDir()
	require.NoError(t, err)
	assert.Equal(t, "/somewhere/engines", dir)

	t.Setenv(CacheEnv, "")
	t.Setenv("XDG_CACHE_HOME", "/home/cache")
	dir, err = DefaultCacheDir()
	require.NoError(t, err)
	assert.Equal(t, "/home/cache/netproof/engines", dir)

	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	_, err = DefaultCacheDir()
	require.Error(t, err)
	assert.Contains(t, err.Error(), CacheEnv)
}

func TestUsersBuildSettingsDoNotReachTheEngines(t *testing.T) {
	t.Setenv("GOFLAGS", "-tags=netproof_nonsense -modcacherw")
	t.Setenv("GOOS", "plan9")
	t.Setenv("GOWORK", "/nowhere/go.work")
	tc, err := findToolchain(t.Context())
	require.NoError(t, err)
	env := tc.buildEnv("/tmp/x")
	assert.Contains(t, env, "GOFLAGS=-mod=readonly -modcacherw")
	set, err := ensure(t.Context(), []spec{helloSpec()}, Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	assert.NoError(t, exec.CommandContext(t.Context(), set.Path("greeter")).Run())
	require.NoError(t, set.Close())
}
