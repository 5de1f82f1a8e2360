package engine

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Versions of the upstream programs, as their projects name them. The module files under modules/ decide what is
// compiled; a test holds the two together.
//
// To move a pin: copy modules/<name> to an empty folder, drop the .txt endings, `go get MODULE@VERSION && go mod tidy`,
// copy go.mod and go.sum back, and change the constant. The checksum database does not know Calico's modules:
// start from the go.sum that Calico publishes and set GONOSUMDB=github.com/projectcalico/* for that one resolution.
const (
	KubernetesVersion = "v1.36.3"
	etcdVersion       = "v3.7.3"
	CalicoVersion     = "v3.30.1"
	CNIPluginsVersion = "v1.9.1"
)

// Names of the engines, as [Engines.Version] and [Event.Engine] use them.
const (
	Kubernetes = "kubernetes"
	Etcd       = "etcd"
	Calico     = "calico"
	CNIPlugins = "cniplugins"
)

// crdsFile is the data file of the calico engine with its CustomResourceDefinitions.
const crdsFile = "calico-crds.yaml"

//go:embed modules
var modules embed.FS

// spec describes one engine: what to compile, from which module, and under which names the results are kept.
type spec struct {
	name    string
	version string
	// files holds the module: every file of it under its name plus ".txt".
	files    fs.FS
	programs []program
	// aliases are further names of a program, which behaves by the name it is called by.
	aliases map[string]string
	data    []dataFile
	// tags are build tags.
	tags    []string
	ldflags []string
}

// program is one executable of an engine.
type program struct {
	file string
	pkg  string
	// versionArgs make the program print its version and leave, without touching anything.
	versionArgs []string
}

// dataFile is a file that is copied out of a module as it is.
type dataFile struct {
	file   string
	module string
	path   string
}

// fileNames lists every file that a complete engine has, sorted.
func (s spec) fileNames() []string {
	var names []string
	for _, p := range s.programs {
		names = append(names, p.file)
	}
	for alias := range s.aliases {
		names = append(names, alias)
	}
	for _, d := range s.data {
		names = append(names, d.file)
	}
	slices.Sort(names)
	return names
}

func (s spec) isExecutable(file string) bool {
	return !slices.ContainsFunc(s.data, func(d dataFile) bool { return d.file == file })
}

// mode is that of a file of the engine, less the umask.
func (s spec) mode(file string) fs.FileMode {
	if s.isExecutable(file) {
		return 0o755
	}
	return 0o644
}

func moduleFiles(name string) fs.FS {
	sub, err := fs.Sub(modules, "modules/"+name)
	if err != nil {
		panic(err) // the argument is a constant of this file
	}
	return sub
}

// KubernetesLDFlags are the linker flags that tell a program of Kubernetes its version: without them it is a v0.0.0,
// which kubeadm and kubelet refuse to work with.
func KubernetesLDFlags() []string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	var ldflags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ldflags = append(ldflags,
			"-X "+pkg+".gitVersion="+KubernetesVersion, "-X "+pkg+".gitMajor="+major, "-X "+pkg+".gitMinor="+minor)
	}
	return ldflags
}

func kubernetesSpec() spec {
	version := []string{"--version"}
	return spec{
		name: Kubernetes, version: KubernetesVersion, files: moduleFiles(Kubernetes),
		programs: []program{
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", version},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", version},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", version},
		},
		ldflags: KubernetesLDFlags(),
	}
}

func etcdSpec() spec {
	return spec{
		name: Etcd, version: etcdVersion, files: moduleFiles(Etcd),
		programs: []program{{"etcd", "go.etcd.io/etcd/server/v3", []string{"--version"}}},
	}
}

func calicoSpec() spec {
	const module = "github.com/projectcalico/calico"
	return spec{
		name: Calico, version: CalicoVersion, files: moduleFiles(Calico),
		programs: []program{
			{"calico-node", module + "/node/cmd/calico-node", []string{"-v"}},
			{"calico", module + "/cni-plugin/cmd/calico", []string{"-v"}},
		},
		// Calico's CNI plugin is one program that acts as the IPAM plugin when it is called by that name.
		aliases: map[string]string{"calico-ipam": "calico"},
		data:    []dataFile{{crdsFile, module, "manifests/crds.yaml"}},
		ldflags: []string{
			"-X " + module + "/node/pkg/lifecycle/startup.VERSION=" + CalicoVersion,
			"-X " + module + "/node/buildinfo.GitVersion=" + CalicoVersion,
			"-X main.VERSION=" + CalicoVersion,
		},
	}
}

func cniPluginsSpec() spec {
	const module = "github.com/containernetworking/plugins"
	return spec{
		name: CNIPlugins, version: CNIPluginsVersion, files: moduleFiles(CNIPlugins),
		// Called without CNI_COMMAND, these print what they are and leave.
		programs: []program{
			{"host-local", module + "/plugins/ipam/host-local", nil},
			{"loopback", module + "/plugins/main/loopback", nil},
			{"ptp", module + "/plugins/main/ptp", nil},
		},
		ldflags: []string{"-X " + module + "/pkg/utils/buildversion.BuildVersion=" + CNIPluginsVersion},
	}
}

// specs lists all engines in the order in which they are built: etcd first, as it is small and leaves the compiled
// standard library behind for the others.
func specs() []spec {
	return []spec{etcdSpec(), kubernetesSpec(), calicoSpec(), cniPluginsSpec()}
}

// plugins are the network plugins of local clusters, the default first, and the engines that each runs beside the
// control plane's.
var plugins = []struct {
	name    string
	engines []string
}{
	// Calico's pods get their addresses from the host-local plugin.
	{"calico", []string{Calico, CNIPlugins}},
	{"none", []string{CNIPlugins}},
}

// Plugins are the network plugins that local clusters can have, the default first.
func Plugins() []string {
	names := make([]string, len(plugins))
	for i := range plugins {
		names[i] = plugins[i].name
	}
	return names
}

// Pin is an engine and the upstream version that is built of it.
type Pin struct{ Name, Version string }

// Pins are all engines, in the order in which users see them.
func Pins() []Pin {
	return []Pin{{Kubernetes, KubernetesVersion}, {Etcd, etcdVersion}, {Calico, CalicoVersion}, {CNIPlugins, CNIPluginsVersion}}
}

// specsFor gives the engines that a cluster with the given network plugin runs.
func specsFor(cni string) ([]spec, error) {
	wanted := []string{Etcd, Kubernetes}
	i := slices.Index(Plugins(), cni)
	if i < 0 {
		return nil, fmt.Errorf("%w %q: the local provider has %s", ErrUnknownCNI, cni, strings.Join(Plugins(), " and "))
	}
	wanted = append(wanted, plugins[i].engines...)
	var chosen []spec
	for _, s := range specs() {
		if slices.Contains(wanted, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}
