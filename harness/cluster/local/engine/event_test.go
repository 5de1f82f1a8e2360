package engine

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlainProgressIsALineAtEachChangeAndEveryTenSeconds(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_000_000, 0)
	p := &progress{w: &out, now: func() time.Time { return now }, last: map[string]time.Time{}, state: map[string]Event{}}
	say := func(after time.Duration, e Event) {
		now = now.Add(after)
		e.Version = "v1"
		p.show(e)
	}
	say(0, Event{Engine: "old", Stage: Ready, Cached: true})
	require.Empty(t, out.String(), "nothing is said of what was there")
	say(0, Event{Engine: "a", Stage: Waiting, Detail: "another run that is building it"})
	say(0, Event{Engine: "a", Stage: Downloading, Total: 30})
	say(time.Second, Event{Engine: "a", Stage: Downloading, Done: 9, Total: 30, Elapsed: time.Second})
	say(time.Second, Event{Engine: "a", Stage: Compiling, Total: 200, Elapsed: 2 * time.Second})
	say(9*time.Second, Event{Engine: "a", Stage: Compiling, Done: 90, Total: 200, Elapsed: 11 * time.Second})
	say(time.Second, Event{Engine: "a", Stage: Compiling, Done: 100, Total: 200, Elapsed: 12 * time.Second})
	say(time.Second, Event{Engine: "a", Stage: Linking, Detail: "x, y", Elapsed: 13 * time.Second})
	say(time.Second, Event{Engine: "a", Stage: Ready, Elapsed: 75 * time.Second})
	assert.Equal(t, `engines: building the upstream programs, once for this machine; this takes some minutes
engines: a v1: waiting for another run that is building it
engines: a v1: downloading modules, 0 of 30 at most
engines: a v1: compiling, 0 of 200 packages (0%), 2s
engines: a v1: compiling, 100 of 200 packages (50%), 12s
engines: a v1: linking x, y, 13s
engines: a v1: ready, 1m15s
`, out.String())
}

func TestTerminalProgressIsOneLineForAllEngines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_000_000, 0)
	p := &progress{
		w: &out, terminal: true, now: func() time.Time { return now },
		last: map[string]time.Time{}, state: map[string]Event{},
	}
	p.show(Event{Engine: "a", Version: "v1", Stage: Compiling, Done: 1, Total: 4})
	p.show(Event{Engine: "a", Version: "v1", Stage: Compiling, Done: 2, Total: 4})
	out.Reset()
	now = now.Add(time.Second)
	p.show(Event{Engine: "b", Version: "v2", Stage: Compiling, Done: 3, Total: 9, Elapsed: 5 * time.Second})
	assert.Equal(t, "\r\x1b[Kengines: a compiling 2 of 4 | b compiling 3 of 9 5s", out.String())
	out.Reset()
	p.show(Event{Engine: "a", Version: "v1", Stage: Ready, Elapsed: 9 * time.Second})
	assert.Equal(t, "\r\x1b[Kengines: a v1: ready, 9s\nengines: b compiling 3 of 9 5s", out.String())
	out.Reset()
	p.show(Event{Engine: "b", Version: "v2", Stage: Ready})
	assert.Equal(t, "\r\x1b[Kengines: b v2: ready\n", out.String(), "nothing stays on the line at the end")
}

func TestFixIsChosenByWhatTheGoCommandSays(t *testing.T) {
	cases := map[string]struct{ output, want string }{
		"no name server": {"go: x@v1: Get \"https://proxy/x\": dial tcp: lookup proxy: no such host", "netproof engines import"},
		"proxy off":      {"x@v1: module lookup disabled by GOPROXY=off", "netproof engines import"},
		"disk full":      {"write /tmp/go-build/b001: no space left on device", "disk is full"},
		"killed linker":  {"link: signal: killed", "out of memory"},
		"old Go":         {"go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)", "GOTOOLCHAIN=auto"},
		"wrong module":   {"verifying x@v1: checksum mismatch\nSECURITY ERROR", "go clean -modcache"},
		"plain mistake":  {"./main.go:3:1: undefined: x", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := newBuildError(spec{name: "e", version: "v1"}, "compile", c.output, errors.New("exit status 1"))
			if c.want == "" {
				assert.Empty(t, err.Fix)
				return
			}
			assert.Contains(t, err.Fix, c.want)
			assert.Contains(t, err.Error(), c.output[:10])
		})
	}
}

func TestErrorShowsTheEndOfALongOutput(t *testing.T) {
	var kept tail
	for range 20 {
		kept.add("early")
	}
	kept.add("last")
	assert.Contains(t, kept.String(), "(9 lines before)\n")
	assert.True(t, bytes.HasSuffix([]byte(kept.String()), []byte("\nlast")))
}

func TestLinesAreHandedOnWholeHoweverTheyAreWritten(t *testing.T) {
	var lines []string
	w := newLineWriter(func(line string) { lines = append(lines, line) })
	for _, part := range []string{"k8s.io/a", "pi\ngo: downl", "oading x\n\n", "end"} {
		n, err := w.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
	}
	w.flush()
	assert.Equal(t, []string{"k8s.io/api", "go: downloading x", "", "end"}, lines)
}

func TestOnlyPackageNamesCountAsCompiled(t *testing.T) {
	for line, want := range map[string]bool{
		"k8s.io/api/core/v1":       true,
		"internal/abi":             true,
		"":                         false,
		"# k8s.io/api/core/v1":     false,
		"go: downloading x v1.0.0": false,
		"main.go:3:2: undefined":   false,
	} {
		assert.Equal(t, want, isPackageLine(line), line)
	}
}

func TestExecutableNameIsTheGoCommands(t *testing.T) {
	for pkg, want := range map[string]string{
		"go.etcd.io/etcd/server/v3":            "server",
		"k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
		"example.test/v1":                      "v1",
		"example.test/very":                    "very",
	} {
		assert.Equal(t, want, executableName(pkg), pkg)
	}
}

func TestRequirementsAreFoldersOfTheModuleCache(t *testing.T) {
	gomod := `module x

go 1.26.0

require github.com/BurntSushi/toml v1.5.0

require (
	k8s.io/api v0.36.3 // indirect
	golang.org/x/net v0.1.0
)

replace (
	k8s.io/api => k8s.io/api v0.36.3
)
`
	assert.Equal(t, []string{"github.com/!burnt!sushi/toml@v1.5.0", "k8s.io/api@v0.36.3", "golang.org/x/net@v0.1.0"},
		requirements(gomod))
}
