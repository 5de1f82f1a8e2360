package cmd

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/flags"
)

const (
	all      = "local, kind, existing"
	making   = "local, kind"
	local    = flags.Local
	kind     = flags.Kind
	existing = flags.Existing
)

// providersOf says for each command that has a choice of providers, and each of its flags, with which of them the flag
// matters. A new flag needs a line here, and flags.For or flags.Offer where the line is not the list of all that the
// command offers: a flag that does nothing with a provider is refused.
var providersOf = map[string]map[string]string{
	"netproof run": {
		"provider": all, "ip-family": all, "nodes": all, "select": all, "shard": all, "lanes": all, "timeout": all, "update-expected": all, "strict": all, "require-expected": all, "assert": all, "every-pair": all,
		"kustomize": all, "chart": all, "values": all, "release": all, "release-namespace": all,
		"max-namespaces": all, "max-pods": all, "max-services": all, "max-cells": all,
		"format": all, "output": all, "verbose": all, "quiet": all, "help": all,
		"cni": making, "keep": making, "cluster": making,
		"engine-dir": local,
		"kind-image": kind, "kubernetes-version": kind, "runtime": kind, "logs-dir": kind, "cni-manifest": kind, "cni-chart": kind,
		"cni-set": kind, "image-override": kind, "image-mirror": kind, "transport": kind, "executable": kind,
		"kubeconfig": existing, "context": existing, "agent-image": existing, "namespaces": existing,
		"namespace-prefix": "kind, existing", "allow": all,
	},
	"netproof doctor": {
		"provider": all, "format": all, "help": all,
		"cni": making, "ip-family": making,
		"nodes": kind, "kind-image": kind, "kubernetes-version": kind, "runtime": kind, "executable": kind,
		"kubeconfig": existing, "context": existing, "agent-image": existing, "namespace-prefix": existing, "namespaces": existing,
	},
	"netproof cluster create": {
		"provider": making, "cni": making, "ip-family": making, "nodes": making, "quiet": making, "help": making,
		"engine-dir": local,
		"kind-image": kind, "kubernetes-version": kind, "runtime": kind, "logs-dir": kind, "cni-manifest": kind, "cni-chart": kind,
		"cni-set": kind, "image-override": kind, "image-mirror": kind, "executable": kind,
	},
}

func tree() *cobra.Command {
	var out bytes.Buffer
	root, _ := newRoot(cli.Streams{Out: &out, Err: &out, Getenv: func(string) string { return "" }})
	return root
}

func commands(c *cobra.Command) (list []*cobra.Command) {
	list = append(list, c)
	for _, sub := range c.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

func TestEveryFlagHasItsProviders(t *testing.T) {
	var seen []string
	for _, c := range commands(tree()) {
		c.InitDefaultHelpFlag()
		if c.Flags().Lookup("provider") == nil {
			c.Flags().VisitAll(func(f *pflag.Flag) {
				// Commands without a choice have flags of clusters for one provider.
				assert.LessOrEqual(t, len(flags.Owners(f)), 1, "%s --%s", c.CommandPath(), f.Name)
			})
			continue
		}
		table, ok := providersOf[c.CommandPath()]
		require.True(t, ok, "%s has --provider and no line in the table", c.CommandPath())
		seen = append(seen, c.CommandPath())
		offered := split(table["provider"])
		left := map[string]bool{}
		for name := range table {
			left[name] = true
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			want, placed := table[f.Name]
			if !assert.True(t, placed, "%s --%s: say in providersOf with which providers it matters", c.CommandPath(), f.Name) {
				return
			}
			delete(left, f.Name)
			have := flags.Owners(f)
			if have == nil {
				have = offered
			}
			assert.Equal(t, split(want), have, "%s --%s", c.CommandPath(), f.Name)
			if len(split(want)) < len(offered) {
				assert.Contains(t, f.Usage, "("+want+")", "the help of %s --%s says with which providers it matters", c.CommandPath(), f.Name)
			}
		})
		assert.Empty(t, left, "%s has no such flags", c.CommandPath())
	}
	assert.Len(t, seen, len(providersOf))
}

func split(list string) []string { return strings.Split(list, ", ") }

// A flag with a provider for which it does nothing is a mistake of the command line, found before anything is done.
func TestAFlagThatDoesNothingIsRefused(t *testing.T) {
	values := map[string]string{"nodes": "2", "ip-family": "dual", "runtime": "docker", "transport": "exec", "cni": "calico", "cni-set": "a=b", "image-override": "a=b"}
	for path, table := range providersOf {
		for name, owners := range table {
			for _, provider := range split(table["provider"]) {
				if slices.Contains(split(owners), provider) {
					continue
				}
				var out, errs bytes.Buffer
				args := strings.Fields(path)[1:]
				if path == "netproof cluster create" {
					args = append(args, "lab")
				}
				args = append(args, "--provider", provider)
				if name == "keep" {
					args = append(args, "--keep")
				} else if value, ok := values[name]; ok {
					args = append(args, "--"+name, value)
				} else {
					args = append(args, "--"+name, "x")
				}
				code := Run(t.Context(), cli.Streams{Out: &out, Err: &errs, Getenv: func(string) string { return "" }}, args)
				assert.Equal(t, 2, code, "%v", args)
				assert.Contains(t, errs.String(), "--"+name+" needs --provider ", "%v", args)
				assert.Empty(t, out.String(), "%v", args)
			}
		}
	}
}

// An empty value would be as if the flag was not there, and a check that somebody asked for would not be made.
func TestNoFlagTakesAnEmptyValue(t *testing.T) {
	t.Chdir(t.TempDir())
	var seen []string
	for _, c := range commands(tree()) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.NoOptDefVal != "" || f.Name == "help" || !c.Runnable() {
				return // it takes no value
			}
			args := append(strings.Fields(c.CommandPath())[1:], "--"+f.Name, "")
			for range 3 { // as many arguments as the command takes
				if c.Args == nil || c.Args(c, args[len(strings.Fields(c.CommandPath()))+1:]) == nil {
					break
				}
				args = append(args, "x")
			}
			_, said, code := command(t, args)
			assert.Equal(t, 2, code, "netproof %q: %s", args, said)
			assert.Contains(t, said, "--"+f.Name, "netproof %q", args)
			seen = append(seen, c.Name()+" --"+f.Name)
		})
	}
	for _, check := range []string{"import --sha256", "run --assert", "list --assert", "cleanup --run", "cleanup --namespaces", "rbac --namespaces", "list --select"} {
		assert.Contains(t, seen, check)
	}
}
