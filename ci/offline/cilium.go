package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// ciliumVersion is the one that package harness/cni/cilium installs.
const ciliumVersion = "v1.15.19"

// The names of Cilium's images, as its chart has them with the values of package harness/cni/cilium, without the tag.
const (
	ciliumAgent    = "quay.io/cilium/cilium"
	ciliumOperator = "quay.io/cilium/operator-generic"
)

// Files in the folder of Cilium's images in the cache: the images, and the vendor's chart packed as --cni-chart takes
// it.
const (
	ciliumArchive = "cilium.tar"
	ciliumChart   = "cilium-1.15.19.tgz"
)

// Data files of the cilium module: folders as tar files, and scripts of the agent's image.
const (
	ciliumChartFiles   = "chart.tar"
	ciliumBPF          = "bpf.tar"
	ciliumInit         = "init-container.sh"
	ciliumInstallCNI   = "install-plugin.sh"
	ciliumUninstallCNI = "cni-uninstall.sh"
)

// ciliumModule is not among modules(): its programs are built only where they are asked for.
func ciliumModule() engine.Module {
	const module = "github.com/cilium/cilium"
	return engine.Module{
		Name: "cilium", Version: ciliumVersion,
		Programs: map[string]string{
			"cilium-agent":            module + "/daemon",
			"cilium-cni":              module + "/plugins/cilium-cni",
			"cilium-dbg":              module + "/cilium-dbg",
			"cilium-mount":            module + "/tools/mount",
			"cilium-operator-generic": module + "/operator",
			"cilium-sysctlfix":        module + "/tools/sysctlfix",
		},
		// As the vendor builds them; the second makes of the operator the generic one.
		Tags: []string{"osusergo", "ipam_provider_operator"},
		Data: []engine.ModuleData{
			{File: ciliumChartFiles, Module: module, Path: "install/kubernetes/cilium"},
			{File: ciliumBPF, Module: module, Path: "bpf"},
			{File: ciliumInit, Module: module, Path: "images/cilium/init-container.sh"},
			{File: ciliumInstallCNI, Module: module, Path: "plugins/cilium-cni/install-plugin.sh"},
			{File: ciliumUninstallCNI, Module: module, Path: "plugins/cilium-cni/cni-uninstall.sh"},
		},
		LDFlags: []string{"-X " + module + "/pkg/version.ciliumVersion=" + strings.TrimPrefix(ciliumVersion, "v")},
	}
}

// ciliumTools are what the agent and its init containers call. The agent compiles its eBPF programs when it starts.
var ciliumTools = selection{
	packages: []string{
		"clang-19", "bpftool", "iproute2", "iptables", "ipset", "kmod", "mount", "util-linux", "bash", "dash", "coreutils", "findutils",
		"debianutils", "sed", "grep",
	},
	// eBPF is compiled without a C library and without a linker.
	withoutPackages: append([]string{
		"binutils", "libc6-dev", "libclang-common-19-dev", "libclang1-19", "libgcc-12-dev", "libobjc-12-dev", "libstdc++-12-dev",
		"llvm-19-linker-tools",
	}, withoutPackages...),
	withoutFiles: withoutFiles,
}

// ciliumLayer gives the layer with ciliumTools, from the cache if it is there. The key is made as that of
// [cache.debianLayers] is.
func (c cache) ciliumLayer(ctx context.Context, mirror string) (layer, error) {
	const description = "layer.json"
	parts := slices.Concat([]string{rootfsFormat, suite}, ciliumTools.packages, ciliumTools.withoutPackages, ciliumTools.withoutFiles)
	dir, err := c.ensure("ciliumtools", keyOf(parts...), func(dir string) error {
		tree := filepath.Join(dir, "tree")
		if err := c.debootstrap(ctx, "Cilium's tools", tree, mirror, ciliumTools.packages); err != nil {
			return err
		}
		tools, err := writeLayer(filepath.Join(dir, "tools.tar.gz"), true, func(l *layerWriter) error { return ciliumTools.write(tree, l) })
		if err != nil {
			return err
		}
		tools.File = filepath.Base(tools.File)
		if err := writeJSON(filepath.Join(dir, description), tools); err != nil {
			return err
		}
		if err := os.RemoveAll(tree); err != nil {
			return fmt.Errorf("remove root file system: %w", err)
		}
		return nil
	})
	if err != nil {
		return layer{}, err
	}
	var tools layer
	if err := readJSON(filepath.Join(dir, description), &tools); err != nil {
		return layer{}, err
	}
	tools.File = filepath.Join(dir, tools.File)
	return tools, nil
}

// ciliumImages gives the archive of Cilium's images and their names. The chart lies beside the archive.
func (c cache) ciliumImages(ctx context.Context, m maker, mirror string) (a archive, err error) {
	programs, err := ensureModules(ctx, []engine.Module{ciliumModule()}, c.dir,
		engine.NewProgress(os.Stderr, term.IsTerminal(int(os.Stderr.Fd()))))
	if err != nil {
		return archive{}, err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	tools, err := c.ciliumLayer(ctx, mirror)
	if err != nil {
		return archive{}, err
	}
	key := keyOf(ciliumSources, filepath.Base(programs.Dirs()["cilium"]), tools.DiffID)
	dir, err := c.ensure("cilium", key, func(dir string) error {
		c.say("Cilium's images")
		work, err := os.MkdirTemp(c.dir, ".layers-")
		if err != nil {
			return fmt.Errorf("make work folder: %w", err)
		}
		defer func() { _ = os.RemoveAll(work) }() // what remains is in the way of nobody
		m.dir = work
		images, err := m.cilium(programs, tools, key)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := packChart(filepath.Join(dir, ciliumChart), "cilium", programs.Path(ciliumChartFiles)); err != nil {
			return err
		}
		return writeArchive(filepath.Join(dir, ciliumArchive), images)
	})
	a.file = filepath.Join(dir, ciliumArchive)
	for _, name := range []string{ciliumAgent, ciliumOperator} {
		a.names = append(a.names, taggedNames(name, ciliumVersion, key))
	}
	return a, err
}

// cilium makes the images of the agent and the operator.
func (m maker) cilium(programs *engine.Engines, tools layer, key string) ([]image, error) {
	named := func(name string) []string {
		names := taggedNames(name, ciliumVersion, key)
		return []string{names.known, names.keyed}
	}
	agent, err := m.layer("cilium", func(l *layerWriter) error { return writeCiliumAgent(l, programs) })
	if err != nil {
		return nil, err
	}
	operator, err := m.layer("cilium-operator", func(l *layerWriter) error {
		return l.copyFile("usr/bin/cilium-operator-generic", programs.Path("cilium-operator-generic"), 0o755)
	})
	if err != nil {
		return nil, err
	}
	return []image{
		{
			names: named(ciliumAgent), layers: []layer{tools, agent},
			config: runConfig{Cmd: []string{"/usr/bin/cilium-dbg"}, WorkingDir: "/home/cilium"},
		},
		{
			names: named(ciliumOperator), layers: []layer{operator},
			config: runConfig{Cmd: []string{"/usr/bin/cilium-operator-generic"}},
		},
	}, nil
}

// ciliumAgentScript stands at the agent's place, and keeps it from stopping on, or changing, the machine.
//
//go:embed ciliumagent.sh
var ciliumAgentScript string

// clangScript makes the compiler forgive what it learned to complain about after Cilium of this version was written:
// the agent asks it to take warnings for errors.
const clangScript = `#!/bin/sh
exec clang-19 "$@" -Wno-error -w
`

// bpftoolScript answers the agent, which asks bpftool for the kernel's configuration. Debian's bpftool refuses that
// without CAP_BPF and CAP_PERFMON; the chart gives CAP_SYS_ADMIN, which to the kernel includes both.
const bpftoolScript = `#!/bin/sh
[ "$*" != "-j feature probe" ] || set -- "$@" unprivileged
exec /usr/sbin/bpftool "$@"
`

// writeCiliumAgent adds what the agent and the init containers of the chart run. Envoy, hubble and cilium-health are
// missing, because the values of package harness/cni/cilium have them off.
func writeCiliumAgent(l *layerWriter, programs *engine.Engines) error {
	for _, file := range [][2]string{
		{"usr/lib/cilium/cilium-agent", "cilium-agent"},
		{"usr/bin/cilium-dbg", "cilium-dbg"},
		{"usr/bin/cilium-mount", "cilium-mount"},
		{"usr/bin/cilium-sysctlfix", "cilium-sysctlfix"},
		{"opt/cni/bin/cilium-cni", "cilium-cni"},
		{ciliumInit, ciliumInit}, {ciliumInstallCNI, ciliumInstallCNI}, {ciliumUninstallCNI, ciliumUninstallCNI},
	} {
		if err := l.copyFile(file[0], programs.Path(file[1]), 0o755); err != nil {
			return err
		}
	}
	if err := l.link("usr/bin/cilium", "cilium-dbg"); err != nil {
		return err
	}
	for _, script := range [][2]string{
		{"usr/bin/cilium-agent", ciliumAgentScript}, {"usr/local/bin/clang", clangScript}, {"usr/local/bin/bpftool", bpftoolScript},
	} {
		if err := l.text(script[0], script[1], 0o755); err != nil {
			return err
		}
	}
	if err := l.folder("home/cilium", 0o755); err != nil {
		return err
	}
	return eachFile(programs.Path(ciliumBPF), func(name string, content []byte) error {
		return l.text("var/lib/cilium/bpf/"+name, string(content), 0o644)
	})
}

// packChart makes of the tar file of a chart's folder the archive that Helm packs of it.
func packChart(file, name, files string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("pack chart: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	compressed := gzip.NewWriter(f)
	out := tar.NewWriter(compressed)
	err = eachFile(files, func(path string, content []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name + "/" + path, Mode: 0o644, Size: int64(len(content)), ModTime: timeOfFiles}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := out.Write(content)
		return err
	})
	if err := errors.Join(err, out.Close(), compressed.Close()); err != nil {
		return fmt.Errorf("pack chart: %w", err)
	}
	return nil
}
