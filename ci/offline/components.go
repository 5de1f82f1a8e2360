package main

import (
	"path/filepath"
	"strings"

	"github.com/netproof/netproof/harness/cluster/local/engine"
)

// maker makes images in a work folder.
type maker struct {
	dir      string
	programs *programs
	own      ownPrograms
	debian   debian
}

// registry is where kubeadm expects the images of Kubernetes to come from.
const registry = "registry.k8s.io/"

// components makes the images that kubeadm starts: each one static program, under the names that kubeadm of this
// version gives them. kube-proxy calls the programs of the machine and stands on those.
func (m maker) components() ([]image, error) {
	var images []image
	for _, c := range []struct {
		name, program string
		// at is the path of the program in the image, if it is not in /usr/local/bin.
		at   string
		base []layer
	}{
		{name: "kube-apiserver:" + engine.KubernetesVersion, program: "kube-apiserver"},
		{name: "kube-controller-manager:" + engine.KubernetesVersion, program: "kube-controller-manager"},
		{name: "kube-scheduler:" + engine.KubernetesVersion, program: "kube-scheduler"},
		{name: "kube-proxy:" + engine.KubernetesVersion, program: "kube-proxy", base: []layer{m.debian.NetTools}},
		{name: "etcd:" + strings.TrimPrefix(etcdVersion, "v") + "-0", program: "etcd"},
		{name: "coredns/coredns:" + coreDNSVersion, program: "coredns", at: "coredns"},
	} {
		at := c.at
		if at == "" {
			at = "usr/local/bin/" + c.program
		}
		top, err := m.layer(c.program, func(l *layerWriter) error { return l.copyFile(at, m.programs.path(c.program), 0o755) })
		if err != nil {
			return nil, err
		}
		images = append(images, image{
			names: []string{registry + c.name}, layers: append(c.base, top),
			config: runConfig{Entrypoint: []string{"/" + at}},
		})
	}
	pause, err := m.layer("pause", func(l *layerWriter) error { return l.copyFile("pause", m.own.pause, 0o755) })
	if err != nil {
		return nil, err
	}
	return append(images, image{
		names:  []string{registry + "pause:" + pauseVersion},
		config: runConfig{User: "65535:65535", Entrypoint: []string{"/pause"}},
		layers: []layer{pause},
	}), nil
}

// layer makes a compressed layer of an image.
func (m maker) layer(name string, fill func(*layerWriter) error) (layer, error) {
	return writeLayer(filepath.Join(m.dir, name+".tar.gz"), true, fill)
}
