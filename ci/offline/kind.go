package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// kindModule is where kind's node files come from: they are part of its Go module.
const kindModule = "sigs.k8s.io/kind"

// kindFiles is the folder images/base/files of the kind that netproof is built with.
type kindFiles struct {
	version, dir string
}

// findKind asks the go command for the module, in the version that netproof's own go.mod names. It has to run inside
// netproof's module, which it does under `go run ./ci/offline`.
func findKind(ctx context.Context) (kindFiles, error) {
	out, err := output(ctx, "go", "mod", "download", "-json", kindModule)
	if err != nil {
		return kindFiles{}, fmt.Errorf("find kind's node files: %w", err)
	}
	var module struct{ Version, Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return kindFiles{}, fmt.Errorf("find kind's node files: %w", err)
	}
	dir := filepath.Join(module.Dir, "images", "base", "files")
	if _, err := os.Stat(dir); err != nil {
		return kindFiles{}, fmt.Errorf("find kind's node files: %w", err)
	}
	return kindFiles{version: module.Version, dir: dir}, nil
}

// write adds the files as kind's Dockerfile does: programs and scripts are executable, all else is not.
func (k kindFiles) write(l *layerWriter) error {
	return filepath.WalkDir(k.dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(k.dir, file)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(name, "usr/local/bin/") || strings.HasPrefix(name, "kind/bin/") {
			mode = 0o755
		}
		if name == kubeletDefaults {
			return k.writeKubeletDefaults(l, file)
		}
		return l.copyFile(name, file, mode)
	})
}

// kubeletDefaults is the file with further arguments of the kubelet.
const kubeletDefaults = "etc/default/kubelet"

// writeKubeletDefaults adds an argument to kind's: a kubelet from 1.35 on refuses cgroup v1 unless an argument says
// otherwise. On a machine with cgroup v2 the argument does nothing.
func (k kindFiles) writeKubeletDefaults(l *layerWriter, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read kind's kubelet arguments: %w", err)
	}
	text, err := withKubeletArgument(string(content), "--fail-cgroupv1=false")
	if err != nil {
		return fmt.Errorf("edit %s: %w", file, err)
	}
	return l.text(kubeletDefaults, text, 0o644)
}

// withKubeletArgument appends an argument to the assignment of KUBELET_EXTRA_ARGS.
func withKubeletArgument(content, argument string) (string, error) {
	var b strings.Builder
	found := false
	for line := range strings.Lines(content) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "KUBELET_EXTRA_ARGS=") {
			found = true
			line += " " + argument
		}
		b.WriteString(line + "\n")
	}
	if !found {
		return "", errors.New("no line begins with KUBELET_EXTRA_ARGS=")
	}
	return b.String(), nil
}
