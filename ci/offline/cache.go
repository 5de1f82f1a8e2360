package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// cache is the folder in which finished things lie, each in a folder of its own whose name ends in the key of its
// content:
//
//	<cache>/programs/       what the images are made of, an engine cache
//	<cache>/rootfs-<key>/   layers of Debian's files
//	<cache>/calico-<key>/   the archive of Calico's images
//	<cache>/node-<key>/     the archive of the node image
//	<cache>/ciliumtools-<key>/, <cache>/cilium-<key>/   with --cilium: Debian's files, images and chart
type cache struct {
	dir string
	// log gets a line at the start of each longer step.
	log io.Writer
}

// openCache makes the cache folder: images/ beside the engines of local clusters.
func openCache(log io.Writer) (cache, error) {
	engines, err := engine.DefaultCacheDir()
	if err != nil {
		return cache{}, err
	}
	dir := filepath.Join(filepath.Dir(engines), "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return cache{}, fmt.Errorf("make cache folder (set %s to use another): %w", engine.CacheEnv, err)
	}
	return cache{dir: dir, log: log}, nil
}

func (c cache) say(format string, args ...any) { fmt.Fprintf(c.log, "offline: "+format+"\n", args...) }

// keyOf makes a key of everything that decides about a result. Each part is preceded by its length, so that different
// parts never run together to the same key.
func keyOf(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// ensure gives the folder of a thing, and makes it by build if it is not there. build works in another folder, which
// gets its name when all is done; whoever wants the same thing meanwhile waits.
func (c cache) ensure(name, key string, build func(dir string) error) (dir string, err error) {
	dir = filepath.Join(c.dir, name+"-"+key)
	lock, err := os.OpenFile(dir+".lock", os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("open lock: %w", err)
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	building := filepath.Join(c.dir, ".building-"+name+"-"+key)
	if err := os.RemoveAll(building); err != nil {
		return "", fmt.Errorf("remove the remains of an interrupted build: %w", err)
	}
	if err := os.MkdirAll(building, 0o755); err != nil {
		return "", fmt.Errorf("make build folder: %w", err)
	}
	if err := build(building); err != nil {
		return "", errors.Join(err, os.RemoveAll(building))
	}
	if err := os.Rename(building, dir); err != nil {
		return "", fmt.Errorf("put %s in place: %w", name, err)
	}
	return dir, nil
}

// writeJSON keeps a value beside what it describes.
func writeJSON(file string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func readJSON(file string, value any) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// runQuietly runs a program and shows what it said only if it did not succeed. The program gets a mount namespace of
// its own when this is root: what it mounts is gone when it is, so that no build folder is ever removed with /proc or
// /sys mounted in it.
func runQuietly(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, said strings.Builder
	cmd.Stdout = io.MultiWriter(&out, &said)
	cmd.Stderr = &said
	if os.Geteuid() == 0 {
		withOwnMounts(cmd)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		if len(lines) > 20 {
			lines = lines[len(lines)-20:]
		}
		return nil, fmt.Errorf("run %s: %w\n  %s", filepath.Base(name), err, strings.Join(lines, "\n  "))
	}
	return []byte(out.String()), nil
}
