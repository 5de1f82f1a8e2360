package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// toolchain is the Go installation that builds engines, with the settings that change what it produces.
type toolchain struct {
	path     string
	settings map[string]string
}

// keySettings are the settings of the Go command that decide about the code it generates. GOTOOLCHAIN is among them
// because a module may ask for a newer Go than the one installed, and then this setting names the one that runs.
var keySettings = []string{
	"GOVERSION", "GOTOOLCHAIN", "GOAMD64", "GOARM64", "GOPPC64", "GORISCV64", "GOEXPERIMENT", "GOFIPS140",
}

// identity is what the key of an engine takes from the toolchain.
func (t toolchain) identity() string {
	parts := []string{runtime.GOOS + "/" + runtime.GOARCH}
	for _, name := range keySettings {
		if value := t.settings[name]; value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	return strings.Join(parts, " ")
}

// goFallbacks are the places where Go's own installation instructions and distributions put it, for users whose PATH
// does not have them, as under sudo.
var goFallbacks = []string{"/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/snap/bin/go"}

func lookGo() (string, error) {
	path, err := exec.LookPath("go")
	if err == nil {
		return filepath.Abs(path)
	}
	for _, path := range goFallbacks {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w in PATH: install Go 1.26 or newer (https://go.dev/doc/install), "+
		"or import a bundle of engines from a machine that has it (netproof engines export, import)", ErrNoGo)
}

// findToolchain locates Go and reads its settings. The error is ErrNoGo where there is none.
func findToolchain(ctx context.Context) (toolchain, error) {
	path, err := lookGo()
	if err != nil {
		return toolchain{}, err
	}
	t := toolchain{path: path}
	// In the root folder, so that no go.mod on the way up chooses another toolchain for us.
	cmd := exec.CommandContext(ctx, path, append([]string{"env", "-json", "GOMODCACHE", "GOFLAGS"}, keySettings...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), platformEnv()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			return toolchain{}, context.Cause(ctx)
		}
		return toolchain{}, fmt.Errorf("ask %s for its settings: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	if err := json.Unmarshal(out, &t.settings); err != nil {
		return toolchain{}, fmt.Errorf("read the settings of %s: %w", path, err)
	}
	if t.settings["GOVERSION"] == "" {
		return toolchain{}, errors.New("ask " + path + " for its version: it gave none")
	}
	return t, nil
}

// platformEnv pins what a user may have set for cross-compiling: engines run on this machine.
func platformEnv() []string {
	return []string{"GOOS=" + runtime.GOOS, "GOARCH=" + runtime.GOARCH, "CGO_ENABLED=0", "GOWORK=off"}
}

// buildEnv is the environment of the Go command. The user's proxy, checksum database and cache folders stay in
// force; flags that would change the result do not.
func (t toolchain) buildEnv(tmp string) []string {
	goflags := "-mod=readonly"
	if strings.Contains(t.settings["GOFLAGS"], "-modcacherw") {
		goflags += " -modcacherw" // who asked for it wants a module cache that they can delete
	}
	return append(append(os.Environ(), platformEnv()...),
		"GO111MODULE=on", "GOFLAGS="+goflags, "GOTMPDIR="+tmp)
}
