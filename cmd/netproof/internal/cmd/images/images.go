// Package images is the command netproof images.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/cmd/netproof/internal/provider"
	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/writefile"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	f := flags.Cluster{}
	var agent, full, executable string
	var digests, quiet bool
	cmd := &cobra.Command{
		Use:   "images",
		Short: "list the images that a kind cluster pulls, or write an image of netproof",
		Long: `List the images that --provider kind makes a cluster of, one a line: that of the nodes, and those of the
network plugin as overrides and mirror make them. With --digests, what their registries call their content.

With --agent or --full, write an image to a file instead, which docker load and registry tools take, and print
its reference. That of --agent is for probe pods: netproof and nothing else. That of --full proves by itself,
in a container with privileges and without a network:

  docker run --rm --privileged -v "$PWD:/policies" IMAGE run /policies

It holds netproof, the engines of local clusters, and the programs of this machine that they call (iptables,
nft, ipset and others) with their libraries. Engines that are missing are built first.`,
		Example: `  netproof images --cni cilium
  netproof images --image-mirror registry.local/mirror --digests
  netproof images --agent agent.tar
  netproof images --full netproof.tar`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if full != "" {
				if agent != "" || digests || executable != "" {
					return cli.Usage("--full does not go with --agent, --digests or --executable: it is an image of this netproof, whose engines it holds")
				}
				if err := f.CheckNone(cmd, "--full: the image has what local clusters of all kinds need"); err != nil {
					return &cli.UsageError{Err: err}
				}
				return writeFull(cmd.Context(), streams, full, quiet)
			}
			if quiet {
				return cli.Usage("--quiet needs --full FILE: nothing else has progress to show")
			}
			if agent != "" {
				if digests {
					return cli.Usage("--digests does not go with --agent: that is one image, and is printed")
				}
				if err := f.CheckNone(cmd, "--agent: the image of probe pods is the same for all clusters"); err != nil {
					return &cli.UsageError{Err: err}
				}
				return writeAgent(cmd.Context(), streams, agent, executable)
			}
			if executable != "" {
				return cli.Usage("--executable needs --agent FILE: it is what that image is made of")
			}
			if err := f.Check(cmd); err != nil {
				return &cli.UsageError{Err: err}
			}
			opts, err := provider.KindOptions(f)
			if err != nil {
				return err
			}
			opts.CNI.Progress = func(text string) { fmt.Fprintln(streams.Err, text) }
			list, err := kind.Images(cmd.Context(), opts, cluster.Options{CNI: f.CNI, IPFamilies: f.IPFamilies()})
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range list {
				if digests {
					digest, err := install.ResolveDigest(cmd.Context(), ref, install.Options{})
					if err != nil {
						errs = append(errs, err)
						digest = "?"
					}
					ref += " " + digest
				}
				fmt.Fprintln(streams.Out, ref)
			}
			return errors.Join(errs...)
		},
	}
	f.Add(cmd, flags.Offer{
		Providers: []string{flags.Kind},
		Without:   []string{"nodes", "runtime", "logs-dir", "executable", "namespace-prefix", "transport"},
	})
	fs := cmd.Flags()
	fs.BoolVar(&digests, "digests", false, "ask the registries for the digest of each image")
	fs.StringVar(&agent, "agent", "", "write the image of the probe pods to this file")
	fs.StringVar(&executable, "executable", "", "static netproof for Linux that the agent image is made of, such as one for another processor, instead of this one")
	fs.StringVar(&full, "full", "", "write the image that proves by itself to this file")
	fs.BoolVarP(&quiet, "quiet", "q", false, "show no progress of engines that --full builds")
	_ = cmd.MarkFlagFilename("agent")
	_ = cmd.MarkFlagFilename("full")
	_ = cmd.MarkFlagFilename("executable")
	return cmd
}

// writeAgent writes the image of probe pods, and prints its reference.
func writeAgent(ctx context.Context, streams cli.Streams, file, executable string) error {
	if err := writefile.Check(file); err != nil {
		return cli.Usage("--agent: %w", err)
	}
	if executable == "" {
		var err error
		if executable, err = image.Running(); err != nil {
			return &cli.UsageError{Err: err}
		}
	}
	img, ref, err := image.Agent(executable)
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	return write(ctx, streams, file, img, ref)
}

// write writes an image, and prints its reference. Nothing is left of a file when ctx ends before it is whole.
func write(ctx context.Context, streams cli.Streams, file string, img v1.Image, ref string) error {
	archive := func(w io.Writer) error { return image.Write(w, img, ref) }
	if err := writefile.Replace(file, func(w io.Writer) error { return cli.WriteWithin(ctx, w, archive) }); err != nil {
		return err
	}
	_, err := fmt.Fprintln(streams.Beside(file), ref)
	return err
}
