package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// suite is the Debian release of the nodes.
const suite = "bookworm"

// rootfsFormat has to change when the code that makes the layers does what it did not do before.
const rootfsFormat = "rootfs 2"

// packages are what a node needs: those of kind's own base image, without file systems for network storage and FUSE;
// ipset and runit are for the images of kube-proxy and Calico, which are made of the same files.
var packages = []string{
	"systemd", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod", "libseccomp2", "pigz",
	"e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps", "ipset", "runc", "runit",
}

// debian are layers of Debian's files.
type debian struct {
	// Base is the whole root file system of a node.
	Base layer
	// NetTools has the programs of netToolPackages only, for the images of kube-proxy and Calico.
	NetTools layer
}

// debianLayers gives the layers, from the cache if they are there. The key is made of what is asked for, not of what
// the mirror has: remove the folder from the cache to have newer packages.
func (c cache) debianLayers(ctx context.Context, mirror string) (debian, error) {
	parts := slices.Concat([]string{rootfsFormat, suite}, packages, netToolPackages, withoutPackages, withoutFiles, trimmed)
	dir, err := c.ensure("rootfs", keyOf(parts...), func(dir string) error { return c.makeDebian(ctx, dir, mirror) })
	if err != nil {
		return debian{}, err
	}
	var d debian
	if err := readJSON(filepath.Join(dir, "layers.json"), &d); err != nil {
		return debian{}, err
	}
	d.Base.File, d.NetTools.File = filepath.Join(dir, d.Base.File), filepath.Join(dir, d.NetTools.File)
	return d, nil
}

func (c cache) makeDebian(ctx context.Context, dir, mirror string) error {
	tree := filepath.Join(dir, "tree")
	if err := c.debootstrap(ctx, "root file system", tree, mirror, packages); err != nil {
		return err
	}
	if err := trim(tree); err != nil {
		return err
	}
	return layersOf(dir, tree)
}

// debootstrap makes a Debian root file system with the given packages in a new folder. what names its use, for
// messages.
func (c cache) debootstrap(ctx context.Context, what, tree, mirror string, packages []string) error {
	if os.Geteuid() != 0 {
		return errors.New("make a Debian root file system: needs root, as debootstrap does")
	}
	if err := c.requireDebootstrap(ctx); err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","), suite, tree}
	if mirror != "" {
		args = append(args, mirror)
	}
	c.say("%s: debootstrap %s", what, suite)
	return runQuietly(ctx, "debootstrap", args...)
}

// requireDebootstrap installs debootstrap where it is missing and can be.
func (c cache) requireDebootstrap(ctx context.Context) error {
	if _, err := exec.LookPath("debootstrap"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("make a Debian root file system: debootstrap is missing, and this is no Debian: install it with the machine's package manager")
	}
	c.say("root file system: apt-get install debootstrap")
	if err := runQuietly(ctx, "apt-get", "update", "-q"); err != nil {
		return err
	}
	return runQuietly(ctx, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", "debootstrap")
}

// layersOf writes the layers of a tree, with what describes them, and removes the tree.
func layersOf(dir, tree string) error {
	base, err := writeLayer(filepath.Join(dir, "base.tar"), false, func(l *layerWriter) error { return l.tree(tree, "", nil) })
	if err != nil {
		return err
	}
	tools, err := writeLayer(filepath.Join(dir, "nettools.tar.gz"), true, func(l *layerWriter) error {
		return selection{packages: netToolPackages, withoutPackages: withoutPackages, withoutFiles: withoutFiles}.write(tree, l)
	})
	if err != nil {
		return err
	}
	base.File, tools.File = filepath.Base(base.File), filepath.Base(tools.File)
	if err := writeJSON(filepath.Join(dir, "layers.json"), debian{Base: base, NetTools: tools}); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return fmt.Errorf("remove root file system: %w", err)
	}
	return nil
}

// trimmed are the files that kind's Dockerfile removes, so that systemd starts nothing but what a node needs, and what
// debootstrap leaves: package files and lists, the host's names, documentation.
var trimmed = []string{
	"lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
	"lib/systemd/system/multi-user.target.wants/*",
	"etc/systemd/system/*.wants/*",
	"lib/systemd/system/local-fs.target.wants/*",
	"lib/systemd/system/sockets.target.wants/*udev*",
	"lib/systemd/system/sockets.target.wants/*initctl*",
	"lib/systemd/system/basic.target.wants/*",
	"var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "dev/*", "run/*", "tmp/*",
	"etc/hostname", "etc/resolv.conf", "etc/machine-id",
	"usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*",
}

func trim(tree string) error {
	for _, pattern := range trimmed {
		matches, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return fmt.Errorf("trim root file system: %w", err)
		}
		for _, match := range matches {
			if err := os.RemoveAll(match); err != nil {
				return fmt.Errorf("trim root file system: %w", err)
			}
		}
	}
	conf, err := os.OpenFile(filepath.Join(tree, "etc/systemd/journald.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("trim root file system: %w", err)
	}
	_, err = io.WriteString(conf, "ReadKMsg=no\n") // the kernel's messages are the machine's, not the node's
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("trim root file system: %w", err)
	}
	return nil
}

// netToolPackages are what kube-proxy and calico-node call, with a shell for Calico's scripts. What these depend on
// comes along.
var netToolPackages = []string{
	"iptables", "nftables", "ipset", "conntrack", "iproute2", "kmod", "runit", "bash", "dash", "coreutils", "debianutils", "sed", "grep",
}

// withoutPackages are dependencies that serve installing only.
var withoutPackages = []string{
	"debconf", "dpkg", "tar", "perl-base", "install-info", "runit-helper", "sysuser-helper", "init-system-helpers", "adduser",
	"gcc-12-base", "libc-bin",
}

// withoutFiles are what no program needs, and runit's own services, whose place Calico's take.
var withoutFiles = []string{"usr/share/", "usr/lib/systemd/", "etc/init.d/", "etc/runit/", "etc/service/", "etc/skel/", "etc/sv/"}

// selection says which files of a Debian tree an image needs.
type selection struct {
	// packages are those that the image's programs call; what they depend on comes along.
	packages []string
	// withoutPackages are dependencies that stay behind, and withoutFiles beginnings of paths that do.
	withoutPackages, withoutFiles []string
}

// write puts the selected files of a Debian tree into a layer.
func (s selection) write(tree string, l *layerWriter) error {
	status, err := os.ReadFile(filepath.Join(tree, "var/lib/dpkg/status"))
	if err != nil {
		return fmt.Errorf("read package list: %w", err)
	}
	files := map[string]bool{}
	for _, name := range closure(parseDepends(string(status)), s.packages, s.withoutPackages) {
		if err := s.packageFiles(tree, name, files); err != nil {
			return err
		}
	}
	if err := addAlternatives(tree, files); err != nil {
		return err
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64", "var/run"} {
		files[link] = true // by these paths programs are called and sockets are found
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := l.entry(tree, name, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"root", "run", "var/lib", "var/log"} {
		if err := l.folder(name, 0o755); err != nil {
			return err
		}
	}
	return l.folder("tmp", 0o1777)
}

// parseDepends reads dpkg's status file: what each installed package depends on, the first of alternatives.
func parseDepends(status string) map[string][]string {
	depends := map[string][]string{}
	for paragraph := range strings.SplitSeq(status, "\n\n") {
		var name string
		var needs []string
		for line := range strings.Lines(paragraph) {
			field, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch field {
			case "Package":
				name = value
			case "Depends", "Pre-Depends":
				for need := range strings.SplitSeq(value, ",") {
					need, _, _ = strings.Cut(need, "|")
					need, _, _ = strings.Cut(strings.TrimSpace(need), " ")
					need, _, _ = strings.Cut(need, ":")
					needs = append(needs, need)
				}
			}
		}
		if name != "" {
			depends[name] = needs
		}
	}
	return depends
}

// closure gives the wanted packages with all that they need, sorted, without those left out and without virtual ones.
func closure(depends map[string][]string, wanted, without []string) []string {
	chosen := map[string]bool{}
	var add func(string)
	add = func(name string) {
		needs, installed := depends[name]
		if !installed || chosen[name] || slices.Contains(without, name) {
			return
		}
		chosen[name] = true
		for _, need := range needs {
			add(need)
		}
	}
	for _, name := range wanted {
		add(name)
	}
	return slices.Sorted(maps.Keys(chosen))
}

// packageFiles adds the files of an installed package that a program may need, by their real paths.
func (s selection) packageFiles(tree, name string, files map[string]bool) error {
	lists, err := filepath.Glob(filepath.Join(tree, "var/lib/dpkg/info", name+".list"))
	if err == nil && len(lists) == 0 {
		lists, err = filepath.Glob(filepath.Join(tree, "var/lib/dpkg/info", name+":*.list"))
	}
	if err != nil || len(lists) != 1 {
		return fmt.Errorf("find files of package %s: %d lists: %w", name, len(lists), errors.Join(err, fs.ErrNotExist))
	}
	content, err := os.ReadFile(lists[0])
	if err != nil {
		return fmt.Errorf("find files of package %s: %w", name, err)
	}
	for line := range strings.Lines(string(content)) {
		file := mergedPath(strings.TrimSpace(line))
		if slices.ContainsFunc(s.withoutFiles, func(prefix string) bool { return strings.HasPrefix(file+"/", prefix) }) {
			continue
		}
		info, err := os.Lstat(filepath.Join(tree, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // trimmed
		}
		if err != nil {
			return fmt.Errorf("find files of package %s: %w", name, err)
		}
		if !info.IsDir() {
			files[file] = true
		}
	}
	return nil
}

// mergedPath gives the real path of a file that a package puts into one of the folders that Debian merged into /usr.
func mergedPath(file string) string {
	file = strings.TrimPrefix(file, "/")
	top, _, nested := strings.Cut(file, "/")
	if nested && slices.Contains([]string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}, top) {
		return "usr/" + file
	}
	return file
}

// addAlternatives adds the links by which Debian chooses between programs of one purpose, such as iptables, where their
// target is among the files, and /bin/sh, which no package lists.
func addAlternatives(tree string, files map[string]bool) error {
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		entries, err := os.ReadDir(filepath.Join(tree, dir))
		if err != nil {
			return fmt.Errorf("find alternatives: %w", err)
		}
		for _, entry := range entries {
			name := filepath.Join(dir, entry.Name())
			target, err := os.Readlink(filepath.Join(tree, name))
			if err != nil {
				continue // not a link
			}
			if target == "dash" {
				files[name] = true
			}
			choice := strings.TrimPrefix(target, "/")
			if !strings.HasPrefix(choice, "etc/alternatives/") {
				continue
			}
			chosen, err := os.Readlink(filepath.Join(tree, choice))
			if err != nil {
				return fmt.Errorf("find alternatives: %w", err)
			}
			if files[mergedPath(chosen)] {
				files[name], files[choice] = true, true
			}
		}
	}
	return nil
}
