package prooftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/report"
)

// provider makes the provider that the flags ask for.
func (s *suite) provider() (cluster.Provider, error) {
	switch s.settings.provider {
	case "kind":
		executable, err := s.agentProgram()
		if err != nil {
			return nil, err
		}
		made, err := kind.New(kind.Options{
			NodeImage: s.settings.image, Executable: executable, Direct: s.settings.transport == "netns",
			CNI:      install.Options{Manifest: s.settings.manifest},
			Progress: func(text string) { fmt.Fprintln(stderr, "prooftest: "+text) },
		})
		if err == nil && s.settings.cluster != "" {
			return kept{made, s.settings.cluster}, nil
		}
		return made, err
	case "existing":
		cfg := s.env.EnvConf() // e2e-framework has flags for these
		return existing.New(existing.Options{
			Kubeconfig: cfg.KubeconfigFile(), Context: cfg.KubeContext(), Image: s.settings.agentImage, NamespacePrefix: s.settings.prefix,
			Namespaces: s.settings.lent(),
		}), nil
	}
	engines, err := engine.Ensure(s.ctx, engine.Options{CNI: s.settings.cni, EngineDir: s.settings.engineDir, Verified: true})
	if err != nil {
		return nil, err
	}
	return local.New(engines), nil
}

// kept is the provider of a cluster that stays after the tests.
type kept struct {
	provider *kind.Provider
	name     string
}

// Create implements [cluster.Provider]: it attaches to the cluster, which must be what is asked for.
func (k kept) Create(ctx context.Context, opts cluster.Options) (cluster.Cluster, error) {
	c, err := k.provider.Attach(ctx, k.name)
	if err != nil {
		return nil, err
	}
	if err := fits(c.Info(), opts); err != nil {
		return nil, errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// fits returns an error that names the flag by which a cluster is something else than what is asked for.
func fits(have model.Cluster, wanted cluster.Options) error {
	switch {
	case have.CNI.Name != wanted.CNI:
		return fmt.Errorf("cluster %s has %s: give -cni %s", have.Name, have.CNI.Name, have.CNI.Name)
	case have.Nodes != wanted.Nodes:
		return fmt.Errorf("cluster %s has %s: give -nodes %d", have.Name, report.Count(have.Nodes, "node", "nodes"), have.Nodes)
	case !slices.Equal(have.IPFamilies, wanted.IPFamilies):
		return fmt.Errorf("cluster %s has addresses of %v: give the -ip-family that says so", have.Name, have.IPFamilies)
	}
	return nil
}

// agentPackage is the agent as a program, of few packages.
const agentPackage = "github.com/netproof/netproof/probes/podagent/netproof-agent"

// agentProgram is the program of the probe pods: this test binary, or, as an image without libraries cannot run one that is dynamically
// linked, the agent alone, built here.
func (s *suite) agentProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the test binary: %w", err)
	}
	_, err = image.Architecture(self)
	if !errors.Is(err, image.ErrDynamic) {
		return self, err
	}
	dir, err := os.MkdirTemp("", "netproof-agent-")
	if err != nil {
		return "", fmt.Errorf("build the agent: %w", err)
	}
	s.cleanups = append(s.cleanups, func() error { return os.RemoveAll(dir) })
	program := filepath.Join(dir, "netproof-agent")
	cmd := exec.CommandContext(s.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, agentPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent for the probe pods: %w: %s", err, out)
	}
	return program, nil
}

// cleanUp undoes what was made beside the cluster.
func (s *suite) cleanUp() int {
	code := 0
	for _, f := range s.cleanups {
		if err := f(); err != nil {
			fmt.Fprintf(stderr, "prooftest: clean up: %v\n", err)
			code = exitFailed
		}
	}
	return code
}
