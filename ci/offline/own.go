package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ownSources are the files of this package that decide what is in an image: they enter the keys, so that a change of
// the code makes new images.
//
//go:embed archive.go calico.go components.go kind.go modules.go node.go rootfs.go storage.yaml
var ownSources embed.FS

// sources is the digest of ownSources.
var sources = digestOf(ownSources)

// ciliumOwnSources are the same for Cilium's images, which other images do not depend on.
//
//go:embed archive.go cilium.go ciliumagent.sh rootfs.go
var ciliumOwnSources embed.FS

// ciliumSources is the digest of ciliumOwnSources.
var ciliumSources = digestOf(ciliumOwnSources)

func digestOf(files fs.FS) string {
	h := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		fmt.Fprintf(h, "%s:%d\n%s", name, len(content), content)
		return err
	})
	if err != nil {
		panic(err) // embedded files can be read
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ownPrograms are the programs of netproof's own that go into images.
type ownPrograms struct {
	pause, runcwrap string
	// key is a digest of both.
	key string
}

// buildOwn builds them, static, into a folder.
func buildOwn(ctx context.Context, dir string) (ownPrograms, error) {
	own := ownPrograms{pause: filepath.Join(dir, "pause"), runcwrap: filepath.Join(dir, "runcwrap")}
	const pkg = "github.com/netproof/netproof/ci/offline/internal/"
	// env, because a variable of this process would also hold for the builds of engines.
	err := runQuietly(ctx, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/",
		pkg+"pause", pkg+"runcwrap")
	if err != nil {
		return ownPrograms{}, fmt.Errorf("build netproof's own programs: %w", err)
	}
	var sums []string
	for _, file := range []string{own.pause, own.runcwrap} {
		content, err := os.ReadFile(file)
		if err != nil {
			return ownPrograms{}, fmt.Errorf("build netproof's own programs: %w", err)
		}
		sum := sha256.Sum256(content)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	own.key = keyOf(sums...)
	return own, nil
}
