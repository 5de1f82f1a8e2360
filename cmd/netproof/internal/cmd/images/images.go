// Package images is the command netproof images.
package images

import (
	"errors"
	"fmt"
	"io"
	"os"

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
	var agent, executable string
	var digests bool
	cmd := &cobra.Command{
		Use:   "images",
		Short: "list the images that a kind cluster pulls, or write the image of probe pods",
		Long: `List the images that --provider kind makes a cluster of, one a line: that of the nodes, and those of the
network plugin as overrides and mirror make them. With --digests, what their registries call their content. With --agent, write the image of the
probe pods to a file instead, which docker load and registry tools take.`,
		Example: `  netproof images --cni cilium
  netproof images --image-mirror registry.local/mirror --digests
  netproof images --agent agent.tar`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if agent != "" {
				if digests {
					return cli.Usage("--digests does not go with --agent: that is one image, and is printed")
				}
				if err := f.CheckNone(cmd, "--agent: the image of probe pods is the same for all clusters"); err != nil {
					return &cli.UsageError{Err: err}
				}
				return writeAgent(streams, agent, executable)
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
		Without:   []string{"nodes", "runtime", "logs-dir", "namespace-prefix", "transport"},
	})
	fs := cmd.Flags()
	fs.BoolVar(&digests, "digests", false, "ask the registries for the digest of each image")
	fs.StringVar(&agent, "agent", "", "write the image of the probe pods to this file")
	fs.StringVar(&executable, "executable", "", "static netproof for the agent image, such as one for another architecture; default this one")
	_ = cmd.MarkFlagFilename("agent")
	return cmd
}

// writeAgent writes the image of probe pods, and prints its reference.
func writeAgent(streams cli.Streams, file, executable string) error {
	if err := writefile.Check(file); err != nil {
		return cli.Usage("--agent: %w", err)
	}
	if executable == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this executable: %w", err)
		}
		executable = self
	}
	img, ref, err := image.Agent(executable)
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	if err := writefile.Replace(file, func(w io.Writer) error { return image.Write(w, img, ref) }); err != nil {
		return err
	}
	if fd, ok := writefile.Descriptor(file); ok && fd == 1 {
		fmt.Fprintln(streams.Err, ref) // the archive is on standard output
		return nil
	}
	fmt.Fprintln(streams.Out, ref)
	return nil
}
