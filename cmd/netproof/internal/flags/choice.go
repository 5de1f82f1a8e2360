package flags

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value   *string
	what    string
	allowed []string
}

var _ pflag.Value = (*choice)(nil)

// Choice defines a flag that takes one of the allowed words; *value holds the default.
func Choice(cmd *cobra.Command, value *string, name, what string, allowed []string, usage string) {
	cmd.Flags().Var(&choice{value, what, slices.Clone(allowed)}, name, fmt.Sprintf("%s: %s", usage, strings.Join(allowed, ", ")))
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
}

func (c *choice) String() string { return *c.value }

// Type is what help texts show for the value.
func (c *choice) Type() string { return "name" }

func (c *choice) Set(word string) error {
	if slices.Contains(c.allowed, word) {
		*c.value = word
		return nil
	}
	return fmt.Errorf("no such %s: there is %s%s", c.what, strings.Join(c.allowed, ", "), suggest.DidYouMean(word, c.allowed))
}
