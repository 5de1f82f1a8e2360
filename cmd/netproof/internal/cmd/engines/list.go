package engines

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/plain"
)

// States of an engine in the list.
const (
	stateReady       = "ready"
	stateBuilding    = "building"
	stateDamaged     = "damaged"
	stateMissing     = "missing"
	stateUnused      = "unused"
	stateInterrupted = "interrupted"
)

// entry is one engine in the list.
type entry struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"`
	// Damage says why it is damaged.
	Damage string `json:"damage,omitempty"`
	Bytes  int64  `json:"bytes"`
	Path   string `json:"path,omitempty"`
	// Made is when it was built or imported.
	Made      *time.Time `json:"made,omitempty"`
	Imported  bool       `json:"imported"`
	Toolchain string     `json:"toolchain,omitempty"`
}

func newList(streams cli.Streams) *cobra.Command {
	format, key := "table", false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "show the engines in the cache, and those that are missing",
		Long: `Show what the cache holds, and verify it. An engine is

  ready        the next run uses it
  building     a build or an import works on it now
  damaged      it is not what was built: the next run builds it again, and an import replaces it
  missing      the next run builds it
  unused       of other versions or another Go: 'netproof engines prune' removes it
  interrupted  the remains of a build: the next build or prune removes them

With --key, print one word instead that names the engines of this netproof and the platform: a key under
which a CI system keeps their bundle.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := engine.Key()
			if err != nil {
				return err
			}
			if key {
				if cmd.Flags().Changed("format") {
					return cli.Usage("--key does not go with --format: it is one word")
				}
				_, err := fmt.Fprintln(streams.Out, name)
				return err
			}
			folder, err := engine.DefaultCacheDir()
			if err != nil {
				return err
			}
			entries, err := look(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return plain.WriteJSON(streams.Out, map[string]any{"folder": folder, "key": name, "engines": entries})
			}
			return writeTable(streams.Out, folder, entries)
		},
	}
	flags.Choice(cmd, &format, "format", "format", []string{"table", "json"}, "form of the output")
	cmd.Flags().BoolVar(&key, "key", false, "print the key of the bundle of these engines")
	return cmd
}

// look lists what the cache holds, with the engines that it lacks.
func look(ctx context.Context) ([]entry, error) {
	cached, err := engine.List(ctx, "")
	if err != nil {
		return nil, err
	}
	entries := []entry{}
	for _, c := range cached {
		e := entry{
			Name: c.Engine, Version: c.Version, State: stateUnused, Bytes: c.Size, Path: c.Path, Imported: c.Imported, Toolchain: c.Toolchain,
			Damage: c.Damage,
		}
		switch {
		case c.Building:
			e.State = stateBuilding
		case c.Damage != "":
			e.State = stateDamaged
		case c.Remains:
			e.State = stateInterrupted
		case c.Current:
			e.State = stateReady
		}
		if !c.BuiltAt.IsZero() {
			e.Made = &c.BuiltAt
		}
		entries = append(entries, e)
	}
	for _, pin := range engine.Pins() {
		there := []string{stateReady, stateBuilding, stateDamaged}
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.Name == pin.Name && slices.Contains(there, e.State) }) {
			entries = append(entries, entry{Name: pin.Name, Version: pin.Version, State: stateMissing})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func writeTable(w io.Writer, folder string, entries []entry) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ENGINE\tVERSION\tSTATE\tSIZE\tMADE\tBY")
	var total int64
	for _, e := range entries {
		size, made, by := "-", "-", "-"
		if e.State != stateMissing {
			size = megabytes(e.Bytes)
		}
		if e.Made != nil {
			made = e.Made.Format(time.DateOnly)
			by = cmp.Or(goVersion(e.Toolchain), "-")
			if e.Imported {
				by += ", imported"
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", plain.Text(e.Name), plain.Text(cmp.Or(e.Version, "-")), e.State, size, made, plain.Text(by))
		total += e.Bytes
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Damage != "" {
			fmt.Fprintf(w, "\n%s is damaged: %s\n", plain.Text(e.Name), plain.Text(e.Damage))
		}
	}
	_, err := fmt.Fprintf(w, "\n%s in %s\n", megabytes(total), plain.Text(folder))
	return err
}

// goVersion finds the release in the identity of a toolchain.
func goVersion(toolchain string) string {
	for word := range strings.FieldsSeq(toolchain) {
		if version, ok := strings.CutPrefix(word, "GOVERSION="); ok {
			return version
		}
	}
	return ""
}
