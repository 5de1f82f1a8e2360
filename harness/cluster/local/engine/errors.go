package engine

import (
	"fmt"
	"strings"
)

// BuildError is an engine whose build did not succeed.
type BuildError struct {
	Engine, Version string
	// Step is what the go command was asked to do.
	Step string
	// Output is the end of what it said.
	Output string
	// Fix tells what to do about it, and is empty where only Output can tell.
	Fix string
	Err error
}

func newBuildError(s spec, step, output string, err error) *BuildError {
	return &BuildError{Engine: s.name, Version: s.version, Step: step, Output: output, Fix: fix(output, err.Error()), Err: err}
}

func (e *BuildError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "build engine %s %s: %s: %v", e.Engine, e.Version, e.Step, e.Err)
	if e.Output != "" {
		b.WriteString("\n  " + strings.ReplaceAll(e.Output, "\n", "\n  "))
	}
	if e.Fix != "" {
		b.WriteString("\n" + e.Fix)
	}
	return b.String()
}

func (e *BuildError) Unwrap() error { return e.Err }

// fix recognises the causes that a user can do something about by what the go command says of them.
func fix(output, err string) string {
	has := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(output, text) {
				return true
			}
		}
		return false
	}
	switch {
	case has("no space left on device", "disk quota exceeded"):
		return "The disk is full: a first build needs about 6 GB in Go's caches (see `go env GOCACHE GOMODCACHE`) and 500 MB in " +
			"netproof's; " + CacheEnv + ", GOCACHE and GOMODCACHE move them."
	case has("checksum mismatch", "SECURITY ERROR"):
		return "A module is not the one that netproof pins. Remove it with `go clean -modcache` and try again; if that does " +
			"not help, the proxy in `go env GOPROXY` serves something else than upstream published."
	case has("requires go >=", "toolchain not available", "download go1.", "invalid go version"):
		return "The installed Go is too old and may not fetch a newer one: install Go 1.26 or newer " +
			"(https://go.dev/doc/install), or let Go fetch it with GOTOOLCHAIN=auto."
	case has("signal: killed", "cannot allocate memory", "out of memory") || strings.Contains(err, "signal: killed"):
		return "The machine ran out of memory: building takes about 2 GB. Free some and run again; finished packages are kept."
	case has("dial tcp", "no such host", "i/o timeout", "connection refused", "network is unreachable", "TLS handshake",
		"module lookup disabled by GOPROXY=off", "connection reset", "proxyconnect", "502 Bad Gateway",
		"503 Service Unavailable", "unexpected EOF", "context deadline exceeded", "certificate"):
		return "Modules are missing from the module cache and could not be downloaded. With a network: check `go env GOPROXY` (and " +
			"HTTPS_PROXY), then run again; what was downloaded is kept. Without one: bring over a bundle from a machine that has " +
			"built the engines (netproof engines export there, netproof engines import here)."
	}
	return ""
}

// tailLines is how much of the go command's output an error shows.
const tailLines = 12

// tail keeps the last lines of an output.
type tail struct {
	lines   []string
	dropped int
}

func (t *tail) add(line string) {
	t.lines = append(t.lines, line)
	if len(t.lines) > tailLines {
		t.lines = t.lines[1:]
		t.dropped++
	}
}

func (t *tail) String() string {
	text := strings.Join(t.lines, "\n")
	if t.dropped > 0 {
		text = fmt.Sprintf("(%d lines before)\n%s", t.dropped, text)
	}
	return text
}
