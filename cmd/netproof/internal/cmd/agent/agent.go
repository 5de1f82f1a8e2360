package agent

import (
	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/probes/podagent"
)

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "serve and send probes in a pod; netproof starts it there itself",
		Long: `The program of probe pods. It serves the pod's ports, and sends probes to endpoints of the same run, for nobody but
the runner that knows the key of the run. There is no need to call it by hand.`,
	}
	for name, short := range map[string]string{
		"serve":   "run the agent of this pod until it is ended",
		"connect": "connect standard input and output to the agent of this pod",
		"stdio":   "run an agent that serves standard input and output",
	} {
		cmd.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return podagent.Run(cmd.Context(), []string{"agent", name}, streams.Getenv, streams.In, streams.Raw().Out)
			},
		})
	}
	return cmd
}
