package image

import (
	"context"
	"fmt"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// fullRepository is the name of the image that proves by itself, without its tag.
	fullRepository = "netproof.dev/netproof"
	// Cache is where that image has netproof's cache.
	Cache = "/var/cache/netproof"
	// policies is the folder in which that image proves, unless it is given paths.
	policies = "/policies"
)

// fullEnv is the environment of the image that proves by itself. cacheEnv names the variable that moves netproof's
// cache.
func fullEnv(cacheEnv string) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8", // tables have signs that ASCII lacks
		cacheEnv + "=" + Cache,
	}
}

// Full assembles an image of netproof with what trees hold: engines below [Cache], and the programs of the machine that
// they call. It runs as root, and adds the folders that both expect of a machine. The sources are read again whenever
// the layers are. Errors are those of [Agent], or the cause of the end of ctx.
func Full(ctx context.Context, executable, cacheEnv string, trees ...*Tree) (v1.Image, string, error) {
	base := &Tree{}
	base.Folder("/tmp", 0o777|fs.ModeSticky)
	base.Folder("/var/tmp", 0o777|fs.ModeSticky)
	base.Folder("/root", 0o700)
	for _, dir := range []string{"/run", "/var/lib"} { // nodes of a local cluster have their own there
		base.Folder(dir, 0o755)
	}
	base.Folder(policies, 0o755)
	base.Bytes("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/false\n"))
	base.Bytes("/etc/group", []byte("root:x:0:\n"))
	img, ref, err := assemble(ctx, executable, fullRepository, v1.Config{
		User:       "0:0",
		Env:        fullEnv(cacheEnv),
		WorkingDir: policies,
		Labels:     map[string]string{"org.opencontainers.image.title": "netproof"},
	}, append([]*Tree{base}, trees...)...)
	if err != nil {
		return nil, "", fmt.Errorf("assemble image of %s: %w", executable, err)
	}
	return img, ref, nil
}
