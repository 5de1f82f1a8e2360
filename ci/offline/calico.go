package main

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// The names of Calico's images, as the vendor's manifest has them, without the tag.
const (
	calicoNode        = "docker.io/calico/node"
	calicoCNI         = "docker.io/calico/cni"
	calicoControllers = "docker.io/calico/kube-controllers"
)

// calicoArchive is the file with Calico's images in its folder of the cache.
const calicoArchive = "calico.tar"

// calicoImages gives the archive of Calico's images and their names.
func (c cache) calicoImages(ctx context.Context, m maker) (archive, error) {
	key := keyOf(append(m.programs.dirs(), sources, m.debian.NetTools.DiffID, m.own.key)...)
	dir, err := c.ensure("calico", key, func(dir string) error {
		c.say("Calico's images")
		work, err := os.MkdirTemp(c.dir, ".layers-")
		if err != nil {
			return fmt.Errorf("make work folder: %w", err)
		}
		defer func() { _ = os.RemoveAll(work) }() // what remains is in the way of nobody
		m.dir = work
		images, err := m.calico(key)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return writeArchive(filepath.Join(dir, calicoArchive), images)
	})
	a := archive{file: filepath.Join(dir, calicoArchive)}
	for _, name := range []string{calicoNode, calicoCNI, calicoControllers} {
		a.names = append(a.names, taggedNames(name, engine.CalicoVersion, key))
	}
	return a, err
}

// taggedNames gives the two names of an image: the one that users know it by, and one of its content.
func taggedNames(name, version, key string) imageNames {
	own := "netproof.dev/" + strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "netproof.dev/")
	return imageNames{known: name + ":" + version, keyed: own + ":" + version + "-" + key}
}

// calico makes the three images that the vendor's manifest names, of the vendor's programs.
func (m maker) calico(key string) ([]image, error) {
	named := func(name string) []string {
		names := taggedNames(name, engine.CalicoVersion, key)
		return []string{names.known, names.keyed}
	}
	node, err := m.layer("calico-node", m.calicoNode)
	if err != nil {
		return nil, err
	}
	cni, err := m.layer("calico-cni", m.calicoCNI)
	if err != nil {
		return nil, err
	}
	controllers, err := m.layer("calico-kube-controllers", m.calicoControllers)
	if err != nil {
		return nil, err
	}
	return []image{
		{
			names: named(calicoNode), layers: []layer{m.debian.NetTools, node},
			config: runConfig{
				Cmd: []string{"start_runit"},
				Env: []string{
					"SVDIR=/etc/service/enabled",
					// A Felix that was built without C panics when it looks for what an eBPF data plane left behind.
					// Felix takes the part behind FELIX_ for a setting's name, and this one is a name with capitals.
					"FELIX_DebugSkipCTLBCleanup=true",
				},
			},
		},
		{
			names: named(calicoCNI), layers: []layer{cni},
			config: runConfig{
				Cmd: []string{"/opt/cni/bin/install"}, WorkingDir: "/opt/cni/bin",
				Env: []string{"PATH=/opt/cni/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			},
		},
		{
			names: named(calicoControllers), layers: []layer{controllers},
			config: runConfig{User: "999", Entrypoint: []string{"/usr/bin/wrapper", "/usr/bin/kube-controllers"}},
		},
	}, nil
}

// calicoNode adds calico-node and the scripts that run it. The zip file of a Go module keeps no modes: all of them are
// scripts or read by root only.
func (m maker) calicoNode(l *layerWriter) error {
	if err := l.copyFile("usr/bin/calico-node", m.programs.path("calico-node"), 0o755); err != nil {
		return err
	}
	return eachFile(m.programs.path(calicoFilesystem), func(name string, content []byte) error {
		return l.text(mergedPath(name), string(content), 0o755)
	})
}

func (m maker) calicoCNI(l *layerWriter) error {
	const dir = "opt/cni/bin/"
	for _, program := range []string{"calico", "install", "host-local", "loopback", "portmap", "bandwidth", "tuning"} {
		if err := l.copyFile(dir+program, m.programs.path(program), 0o755); err != nil {
			return err
		}
	}
	// One program that acts as the other when it is called by its name.
	return l.header(&tar.Header{Typeflag: tar.TypeLink, Name: dir + "calico-ipam", Linkname: dir + "calico", Mode: 0o755})
}

func (m maker) calicoControllers(l *layerWriter) error {
	for _, program := range []string{"kube-controllers", "check-status", "wrapper"} {
		if err := l.copyFile("usr/bin/"+program, m.programs.path(program), 0o755); err != nil {
			return err
		}
	}
	// The program runs as this user and writes into these files, which it does not make.
	const user = 999
	for _, name := range []string{"status/status.json", "profiles/mem.pprof", "profiles/cpu.pprof"} {
		if err := l.owned(name, "", 0o644, user); err != nil {
			return err
		}
	}
	return nil
}
