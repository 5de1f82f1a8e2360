package provider

import (
	"context"
	"errors"
	"io"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/launch"
)

// Open gives the cluster of a provider that needs no sandbox. The flags of clusters say the rest.
func Open(ctx context.Context, f flags.Cluster, w launch.Wanted) (c cluster.Cluster, disposable bool, err error) {
	w.Provider = f.Provider
	w.Cluster.CNI, w.Cluster.Nodes, w.Cluster.IPFamilies = f.CNI, f.Nodes, f.IPFamilies()
	if f.Provider == flags.Kind {
		keep := w.Kind.Keep
		if w.Kind, err = KindOptions(f); err != nil {
			return nil, false, err
		}
		w.Kind.Progress, w.Kind.Keep = w.Cluster.Progress, keep
	}
	w.Existing = Existing(f)
	c, disposable, err = launch.Cluster(ctx, w)
	var wrong *launch.InputError
	if errors.As(err, &wrong) {
		err = &cli.UsageError{Err: wrong.Err}
	}
	return c, disposable, err
}

// KindOptions are the options of a provider of kind clusters. Its error is about the flags.
func KindOptions(f flags.Cluster) (kind.Options, error) {
	overrides, err := overrides(f.ImageOverrides)
	if err != nil {
		return kind.Options{}, err
	}
	opts := kind.Options{
		Runtime: f.Runtime, NodeImage: f.KindImage, KubernetesVersion: f.KubernetesVersion, LogsDir: f.LogsDir, Executable: f.Executable,
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

// Named is a local cluster that keeps running, as the flags say.
func Named(streams cli.Streams, f flags.Cluster, name string, quiet bool) launch.Named {
	says := streams.Err
	if quiet {
		says = io.Discard
	}
	return launch.Named{
		Name: name, Engines: launch.Engines{CNI: f.CNI, Dir: f.EngineDir, Progress: progress.Engines(streams, quiet)},
		Nodes: f.Nodes, IPFamily: f.IPFamily, Says: says,
	}
}
