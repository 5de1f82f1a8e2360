package main

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/term"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// Versions of the upstream programs that only nodes need. Those of Kubernetes and Calico are the engine package's; the
// module files under modules/ decide what is compiled. To move a pin, follow the comment at the pins of that package.
const (
	containerdVersion = "v2.3.7"
	crictlVersion     = "v1.36.0"
	coreDNSVersion    = "v1.14.2"
	// etcdVersion is the one that kubeadm of engine.KubernetesVersion asks for, so that no configuration has to name
	// another.
	etcdVersion = "v3.6.8"
	// pauseVersion is the one that kind's containerd configuration names. The program is ours: see internal/pause.
	pauseVersion = "3.10"
)

//go:embed modules
var moduleFiles embed.FS

// modules lists what is built beside the engines of local clusters, the slowest first.
func modules() []engine.Module {
	const (
		kubernetes = "k8s.io/kubernetes/cmd/"
		containerd = "github.com/containerd/containerd/v2/cmd/"
		plugins    = "github.com/containernetworking/plugins/plugins/meta/"
		calico     = "github.com/projectcalico/calico"
	)
	return []engine.Module{
		{
			Name: "kubenode", Version: engine.KubernetesVersion,
			Programs: map[string]string{
				"kube-scheduler": kubernetes + "kube-scheduler", "kubeadm": kubernetes + "kubeadm",
				"kubectl": kubernetes + "kubectl", "kubelet": kubernetes + "kubelet",
			},
			LDFlags: engine.KubernetesLDFlags(),
		},
		{
			Name: "containerd", Version: containerdVersion,
			Programs: map[string]string{
				"containerd": containerd + "containerd", "ctr": containerd + "ctr",
				"containerd-shim-runc-v2": containerd + "containerd-shim-runc-v2",
			},
			// As kind builds it: snapshotters that no node selects; some need C.
			Tags:    []string{"no_aufs", "no_zfs", "no_btrfs", "no_devmapper"},
			LDFlags: []string{"-X github.com/containerd/containerd/v2/version.Version=" + containerdVersion},
		},
		{
			Name: "coredns", Version: coreDNSVersion,
			Programs: map[string]string{"coredns": "github.com/coredns/coredns"},
		},
		{
			Name: "nodeetcd", Version: etcdVersion,
			Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"},
		},
		{
			Name: "crictl", Version: crictlVersion,
			Programs: map[string]string{"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"},
			LDFlags:  []string{"-X sigs.k8s.io/cri-tools/pkg/version.Version=" + crictlVersion},
		},
		{
			Name: "cnimeta", Version: engine.CNIPluginsVersion,
			Programs: map[string]string{
				"bandwidth": plugins + "bandwidth", "portmap": plugins + "portmap", "tuning": plugins + "tuning",
			},
		},
		{
			Name: "calicoimage", Version: engine.CalicoVersion,
			Programs: map[string]string{
				"install":          calico + "/cni-plugin/cmd/install",
				"check-status":     calico + "/kube-controllers/cmd/check-status",
				"kube-controllers": calico + "/kube-controllers/cmd/kube-controllers",
				"wrapper":          calico + "/kube-controllers/cmd/wrapper",
			},
			Data: []engine.ModuleData{
				{File: calicoManifest, Module: calico, Path: "manifests/calico-vxlan.yaml"},
				{File: calicoFilesystem, Module: calico, Path: "node/filesystem"},
			},
			LDFlags: []string{"-X main.VERSION=" + engine.CalicoVersion},
		},
	}
}

// Data files of the calicoimage module: the vendor's manifest, and the scripts of the calico/node image as a tar file.
const (
	calicoManifest   = "calico-vxlan.yaml"
	calicoFilesystem = "filesystem.tar"
)

// programs are all executables that the images are made of. Close lets go of them.
type programs struct {
	local, further *engine.Engines
}

// buildPrograms builds what is not in the cache yet: the engines of local clusters first, because they share most of
// their packages with what follows.
func buildPrograms(ctx context.Context, cacheDir string) (*programs, error) {
	progress := engine.NewProgress(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
	local, err := engine.Ensure(ctx, engine.Options{CNI: "calico", Progress: progress})
	if err != nil {
		return nil, err
	}
	further, err := ensureModules(ctx, modules(), cacheDir, progress)
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	return &programs{local: local, further: further}, nil
}

// ensureModules builds modules whose files lie under modules/, into a folder of their own: `netproof cache` prunes what
// local clusters do not use.
func ensureModules(ctx context.Context, wanted []engine.Module, cacheDir string, progress func(engine.Event)) (*engine.Engines, error) {
	for i := range wanted {
		files, err := fs.Sub(moduleFiles, "modules/"+wanted[i].Name)
		if err != nil {
			return nil, err
		}
		wanted[i].Files = files
	}
	return engine.EnsureModules(ctx, wanted, engine.Options{CacheDir: filepath.Join(cacheDir, "programs"), Progress: progress})
}

// path gives the file of a program. Where both sets have one of that name, which is so with etcd, it is that of the
// nodes.
func (p *programs) path(name string) string {
	if p.further.Has(name) {
		return p.further.Path(name)
	}
	return p.local.Path(name)
}

// dirs names the folders of all programs, which are keyed by their content.
func (p *programs) dirs() []string {
	var dirs []string
	for _, set := range []*engine.Engines{p.local, p.further} {
		for _, dir := range set.Dirs() {
			dirs = append(dirs, filepath.Base(dir))
		}
	}
	slices.Sort(dirs)
	return dirs
}

// Close lets go of the programs.
func (p *programs) Close() error { return errors.Join(p.local.Close(), p.further.Close()) }
