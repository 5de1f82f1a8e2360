package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cni/install"
)

// Wanted says which cluster a run wants.
type Wanted struct {
	flags.Cluster
	// Name of a kind cluster to use, or of the one to make.
	Name string
	// Attach uses the cluster of that name, which must be there.
	Attach bool
	// Keep leaves it in place at the end.
	Keep bool
	// AnyFamily takes the IP families of an existing cluster as they are.
	AnyFamily bool
	// AnyNodes takes all nodes of an existing cluster.
	AnyNodes bool
	Progress func(string)
}

// Open gives the cluster. disposable tells whether it ends with the run.
func Open(ctx context.Context, w Wanted) (c cluster.Cluster, disposable bool, err error) {
	opts := cluster.Options{CNI: w.CNI, Nodes: w.Nodes, IPFamilies: w.IPFamilies(), Progress: w.Progress, Name: w.Name}
	switch w.Provider {
	case flags.Kind:
		p, err := Kind(w.Cluster, w.Progress, w.Keep)
		if err != nil {
			return nil, false, err
		}
		if w.Attach {
			c, err := p.Attach(ctx, w.Name)
			if errors.Is(err, kind.ErrNotFound) {
				err = &cli.UsageError{Err: err}
			}
			if err != nil {
				return nil, false, err
			}
			return c, false, nil
		}
		c, err := p.Create(ctx, opts)
		return c, !w.Keep, err
	case flags.Existing:
		if w.AnyFamily {
			opts.IPFamilies = nil
		}
		if w.AnyNodes {
			opts.Nodes = 0
		}
		opts.CNI = ""
		access := Existing(w.Cluster)
		if _, _, err := existing.RESTConfig(access); err != nil {
			return nil, false, &cli.UsageError{Err: err}
		}
		c, err := existing.New(access).Create(ctx, opts)
		if errors.Is(err, existing.ErrNoImage) {
			err = &cli.UsageError{Err: err}
		}
		return c, false, err
	}
	return nil, false, fmt.Errorf("provider %s has its clusters in a sandbox", w.Provider)
}

// Kind makes the provider of kind clusters. Its error is about the flags.
func Kind(f flags.Cluster, progress func(string), keep bool) (*kind.Provider, error) {
	opts, err := KindOptions(f)
	if err != nil {
		return nil, err
	}
	opts.Progress, opts.Keep = progress, keep
	p, err := kind.New(opts)
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	return p, nil
}

// KindOptions are the options of a provider of kind clusters. Its error is about the flags.
func KindOptions(f flags.Cluster) (kind.Options, error) {
	overrides, err := overrides(f.ImageOverrides)
	if err != nil {
		return kind.Options{}, err
	}
	opts := kind.Options{
		Runtime: f.Runtime, NodeImage: f.KindImage, KubernetesVersion: f.KubernetesVersion, LogsDir: f.LogsDir,
		Direct: f.Transport == flags.Netns,
		CNI:    install.Options{Manifest: f.Manifest, Chart: f.Chart, Set: f.Set, ImageOverrides: overrides, Mirror: f.Mirror},
	}
	if _, err := kind.New(opts); err != nil {
		return opts, &cli.UsageError{Err: err}
	}
	return opts, nil
}

// overrides parses --image-override.
func overrides(list []string) ([]install.Override, error) {
	var out []install.Override
	for _, text := range list {
		o, err := install.ParseOverride(text)
		if err != nil {
			return nil, &cli.UsageError{Err: err}
		}
		out = append(out, o)
	}
	return out, nil
}

// Existing are the options of a provider of existing clusters.
func Existing(f flags.Cluster) existing.Options {
	return existing.Options{
		Kubeconfig: f.Kubeconfig, Context: f.Context, Image: f.AgentImage, NamespacePrefix: f.NamespacePrefix, Namespaces: f.Namespaces,
	}
}
