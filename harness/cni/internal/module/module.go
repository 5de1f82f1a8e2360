// Package module gives tests what a vendor published as a Go module: the same files as in the vendor's archive of that
// version, checked against sums that are kept here, and found without a network where the module cache has them.
package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Dir returns the folder of a module. pins holds go.mod.txt, which names the version, and go.sum.txt with its sum. An
// error means that neither the module cache nor the proxy has it, or that it is not what the sum says.
func Dir(ctx context.Context, pins fs.FS, path string) (string, error) {
	version, err := pinnedVersion(pins, path)
	if err != nil {
		return "", err
	}
	// A module of its own, so that the sums are the given ones and the list of versions is not netproof's.
	work, err := os.MkdirTemp("", "netproof-module-")
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	sums, err := fs.ReadFile(pins, "go.sum.txt")
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(work, "go.mod"), []byte("module netproof.dev/pins\n"), 0o644),
		os.WriteFile(filepath.Join(work, "go.sum"), sums, 0o644))
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	return download(ctx, work, path+"@"+version)
}

func download(ctx context.Context, work, module string) (string, error) {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	command.Dir = work
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := command.Output()
	var answer struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &answer); jsonErr == nil && answer.Error != "" {
		return "", fmt.Errorf("download module %s: %s", module, answer.Error)
	}
	if err != nil {
		return "", fmt.Errorf("download module %s: %w", module, err)
	}
	return answer.Dir, nil
}

// pinnedVersion reads the version from a go.mod file, which says it as "path version", after require or in a block.
func pinnedVersion(pins fs.FS, path string) (string, error) {
	text, err := fs.ReadFile(pins, "go.mod.txt")
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", path, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == path && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("find module %s: no version of it is required in go.mod.txt", path)
}
