package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// nodeName is the name of the node image, without the tag.
const nodeName = "netproof.dev/kind-node"

// nodeArchive is the file with the node image in its folder of the cache.
const nodeArchive = "node.tar"

// nodeImage gives the archive of the node image: Debian's files, and above them kind's, the programs of a node, and a
// content store of containerd that holds the images of Kubernetes and those in preloaded.
func (c cache) nodeImage(ctx context.Context, m maker, kind kindFiles, preloaded []archive) (archive, error) {
	parts := append(m.programs.dirs(), sources, m.debian.Base.DiffID, m.debian.NetTools.DiffID, m.own.key, kind.version)
	for _, a := range preloaded {
		parts = append(parts, a.file)
	}
	key := keyOf(parts...)
	names := taggedNames(nodeName, engine.KubernetesVersion, key)
	dir, err := c.ensure("node", key, func(dir string) error {
		c.say("node image")
		work, err := os.MkdirTemp(c.dir, ".node-")
		if err != nil {
			return fmt.Errorf("make work folder: %w", err)
		}
		defer func() { _ = os.RemoveAll(work) }() // what remains is in the way of nobody
		m.dir = work
		store, err := m.contentStore(ctx, preloaded)
		if err != nil {
			return err
		}
		top, err := writeLayer(filepath.Join(work, "node.tar"), false, func(l *layerWriter) error {
			return m.node(ctx, l, kind, store)
		})
		if err != nil {
			return err
		}
		return writeArchive(filepath.Join(dir, nodeArchive), []image{{
			names: []string{names.known, names.keyed}, layers: []layer{m.debian.Base, top},
			config: runConfig{
				Env:        []string{"container=docker"}, // systemd looks for it: https://systemd.io/CONTAINER_INTERFACE
				Entrypoint: []string{"/usr/local/bin/entrypoint", "/sbin/init"},
				StopSignal: "SIGRTMIN+3", // systemd takes SIGTERM for a request to start itself again
			},
		}})
	})
	return archive{file: filepath.Join(dir, nodeArchive), names: []imageNames{names}}, err
}

// contentStore makes the data folder of a containerd that has all images, not unpacked, and gives its path. kind's own
// builder does the same inside a container; here containerd works on a folder.
func (m maker) contentStore(ctx context.Context, preloaded []archive) (string, error) {
	images, err := m.components()
	if err != nil {
		return "", err
	}
	file := filepath.Join(m.dir, "components.tar")
	if err := writeArchive(file, images); err != nil {
		return "", err
	}
	files := []string{file}
	for _, a := range preloaded {
		files = append(files, a.file)
	}
	store := filepath.Join(m.dir, "containerd")
	return store, m.importImages(ctx, store, files)
}

// containerdConfig keeps the containerd that imports images within its folder: nothing of it must be seen on this
// machine.
const containerdConfig = `version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = %q
[ttrpc]
  address = %q
`

// containerdStart is how long containerd may take until it answers.
const containerdStart = 30 * time.Second

// importImages runs containerd with a data folder and imports image archives into it.
func (m maker) importImages(ctx context.Context, store string, files []string) (err error) {
	state := filepath.Join(m.dir, "state")
	socket := filepath.Join(m.dir, "s")
	config := filepath.Join(m.dir, "containerd.toml")
	content := fmt.Sprintf(containerdConfig, store, state, socket, socket+".ttrpc")
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return fmt.Errorf("configure containerd: %w", err)
	}
	log, err := os.Create(filepath.Join(m.dir, "containerd.log"))
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(m.programs.path("containerd"), "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	withOwnMounts(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer func() {
		stopErr := cmd.Process.Signal(syscall.SIGTERM)
		waitErr := cmd.Wait()
		if err = errors.Join(err, stopErr, waitErr); err != nil {
			said, _ := os.ReadFile(log.Name()) // it only explains the error
			err = fmt.Errorf("import images: %w\n  %s", err, lastLines(string(said), 10))
		}
	}()
	if err := awaitSocket(ctx, socket); err != nil {
		return err
	}
	for _, file := range files {
		err := runQuietly(ctx, m.programs.path("ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", "--no-unpack",
			"--label", "io.cri-containerd.pinned=pinned", file) // the kubelet never removes pinned images
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitSocket waits until a socket is there. ctr then waits by itself until somebody answers.
func awaitSocket(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, containerdStart, errors.New("containerd does not answer"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n  ")
}

// nodePrograms are the programs of a node by their folder.
var nodePrograms = map[string][]string{
	"usr/bin/":       {"kubeadm", "kubectl", "kubelet"},
	"usr/local/bin/": {"containerd", "containerd-shim-runc-v2", "ctr", "crictl"},
	"opt/cni/bin/":   {"bandwidth", "host-local", "loopback", "portmap", "ptp", "tuning"},
}

// storageManifest takes the place of kind's default storage, whose provisioner is an image that cannot be had: a class
// that exists, and volumes of which somebody has to make.
//
//go:embed storage.yaml
var storageManifest string

// node writes the upper layer of the node image, as kind's Dockerfile and its node image builder do.
func (m maker) node(ctx context.Context, l *layerWriter, kind kindFiles, store string) error {
	if err := kind.write(l); err != nil {
		return fmt.Errorf("add kind's node files: %w", err)
	}
	for _, dir := range []string{"opt/cni/bin/", "usr/bin/", "usr/local/bin/"} {
		for _, program := range nodePrograms[dir] {
			if err := l.copyFile(dir+program, m.programs.path(program), 0o755); err != nil {
				return err
			}
		}
	}
	// Before /usr/sbin/runc, Debian's, in the PATH of containerd's shim.
	if err := l.copyFile("usr/local/sbin/runc", m.own.runcwrap, 0o755); err != nil {
		return err
	}
	base, err := output(ctx, m.programs.path("ctr"), "oci", "spec")
	if err != nil {
		return err
	}
	if base, err = baseSpec(base); err != nil {
		return err
	}
	for _, file := range [][2]string{
		{"etc/containerd/cri-base.json", string(base)},
		{"kind/manifests/default-storage.yaml", storageManifest},
		{"kind/version", engine.KubernetesVersion},
	} {
		if err := l.text(file[0], file[1], 0o644); err != nil {
			return err
		}
	}
	if err := l.folder("etc/kubernetes/manifests", 0o755); err != nil {
		return err
	}
	if err := enableServices(l); err != nil {
		return err
	}
	return l.tree(store, "var/lib/containerd", nil)
}

// enableServices makes the links that `systemctl enable` and `systemctl mask` make.
func enableServices(l *layerWriter) error {
	const units = "etc/systemd/system/"
	links := [][2]string{
		{"usr/sbin/init", "/usr/lib/systemd/systemd"},
		{units + "systemd-binfmt.service", "/dev/null"}, // it changes the whole machine
	}
	for _, service := range []string{"containerd", "kubelet", "undo-mount-hacks"} {
		links = append(links, [2]string{units + "multi-user.target.wants/" + service + ".service", "/" + units + service + ".service"})
	}
	for _, link := range links {
		if err := l.link(link[0], link[1]); err != nil {
			return err
		}
	}
	return nil
}

// baseSpec edits the specification that containers begin with, as kind does: a hook gives each the product name and
// identifier of its node, and the limits are those of the node.
func baseSpec(spec []byte) ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(spec, &document); err != nil {
		return nil, fmt.Errorf("edit base specification: %w", err)
	}
	process, ok := document["process"].(map[string]any)
	if !ok {
		return nil, errors.New("edit base specification: it has no process")
	}
	delete(process, "rlimits")
	hooks, _ := document["hooks"].(map[string]any)
	if hooks == nil {
		hooks = map[string]any{}
		document["hooks"] = hooks
	}
	list, _ := hooks["createContainer"].([]any)
	hooks["createContainer"] = append(list, map[string]any{"path": "/kind/bin/mount-product-files.sh"})
	return json.MarshalIndent(document, "", "  ")
}
