package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// release and commit may be set by the linker (-X); what they do not say comes from the build information.
var release, commit string

// Info is what netproof knows of its own build.
type Info struct {
	Version string `json:"version"`
	// Commit is empty when it was not known to the build.
	Commit string `json:"commit,omitempty"`
	// Modified is true when the source had changes that were not committed.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Scenario is the version of the scenario file and of the report.
	Scenario string `json:"apiVersion"`
	// Engines are the versions of the upstream programs of the local provider.
	Engines map[string]string `json:"engines"`
	// Plugins are the network plugins that each provider can make clusters with, the default first.
	Plugins map[string][]string `json:"plugins"`
}

// Get reads the build information of this program.
func Get() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = &debug.BuildInfo{}
	}
	return infoOf(build, release, commit)
}

// Tool is what reports say of the program.
func (i Info) Tool() model.Tool {
	t := model.Tool{Version: i.Version, Commit: i.Commit}
	if i.Modified && t.Commit != "" {
		t.Commit += "+"
	}
	return t
}

func infoOf(build *debug.BuildInfo, release, commit string) Info {
	info := Info{
		Version: release, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Scenario: model.APIVersion,
		Engines: map[string]string{}, Plugins: map[string][]string{},
	}
	for _, pin := range engine.Pins() {
		info.Engines[pin.Name] = pin.Version
	}
	for _, name := range providers.Names() {
		if plugins := providers.Plugins(name); len(plugins) > 0 {
			info.Plugins[name] = plugins
		}
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = cmp.Or(info.Commit, s.Value)
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	if info.Version == "" && build.Main.Version != "" && build.Main.Version != "(devel)" {
		info.Version = build.Main.Version
	}
	if info.Version == "" {
		info.Version = "devel"
	}
	return info
}

// New returns the command.
func New(streams cli.Streams) *cobra.Command {
	format := "text"
	cmd := &cobra.Command{
		Use:   "version",
		Short: "print the version of netproof and of what it runs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return write(streams, Get(), format)
		},
	}
	flags.Choice(cmd, &format, "format", "format", []string{"text", "json"}, "form of the output")
	return cmd
}

func write(streams cli.Streams, info Info, format string) error {
	if format == "json" {
		return plain.WriteJSON(streams.Out, info)
	}
	commit := ""
	if info.Commit != "" {
		commit = " (" + info.Commit[:min(12, len(info.Commit))]
		if info.Modified {
			commit += ", modified"
		}
		commit += ")"
	}
	fmt.Fprintf(streams.Out, "netproof %s%s %s %s\n", info.Version, commit, info.Go, info.Platform)
	for _, pin := range engine.Pins() {
		fmt.Fprintf(streams.Out, "  %-12s %s\n", pin.Name, pin.Version)
	}
	fmt.Fprintf(streams.Out, "  %-12s %s\n", "--cni", providers.Offer())
	return nil
}
