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
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/launch"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/words"
)

// launch gives the cluster that the flags ask for. disposable tells whether it ends with the tests.
func (s *suite) launch() (c cluster.Cluster, disposable bool, err error) {
	families, _ := s.settings.families() // all were checked in Main
	nodes, _ := s.settings.nodeCount()
	w := launch.Wanted{
		Provider: s.settings.provider, EngineDir: s.settings.engineDir, Attach: s.settings.cluster != "",
		Cluster: cluster.Options{Name: s.settings.cluster, CNI: s.settings.cni, Nodes: nodes, IPFamilies: families},
	}
	switch w.Provider {
	case providers.Kind:
		executable, err := s.agentProgram()
		if err != nil {
			return nil, false, err
		}
		w.Kind = kind.Options{
			NodeImage: s.settings.image, Executable: executable, Direct: s.settings.transport == "netns",
			CNI:      install.Options{Manifest: s.settings.manifest},
			Progress: func(text string) { fmt.Fprintln(stderr, "prooftest: "+text) },
		}
	case providers.Existing:
		cfg := s.env.EnvConf() // e2e-framework has flags for these
		w.Existing = existing.Options{
			Kubeconfig: cfg.KubeconfigFile(), Context: cfg.KubeContext(), Image: s.settings.agentImage, NamespacePrefix: s.settings.prefix,
			Namespaces: s.settings.lent(),
		}
	}
	c, disposable, err = launch.Cluster(s.ctx, w)
	if err == nil && w.Attach {
		if err := fits(c.Info(), w.Cluster); err != nil {
			return nil, false, errors.Join(err, c.Close(context.WithoutCancel(s.ctx)))
		}
	}
	return c, disposable, err
}

// fits returns an error that names the flag by which a cluster is something else than what is asked for.
func fits(have model.Cluster, wanted cluster.Options) error {
	switch {
	case have.CNI.Name != wanted.CNI:
		return fmt.Errorf("cluster %s has %s: give -cni %s", have.Name, have.CNI.Name, have.CNI.Name)
	case have.Nodes != wanted.Nodes:
		return fmt.Errorf("cluster %s has %s: give -nodes %d", have.Name, words.Count(have.Nodes, "node", "nodes"), have.Nodes)
	case !slices.Equal(have.IPFamilies, wanted.IPFamilies):
		return fmt.Errorf("cluster %s has addresses of %v: give the -ip-family that says so", have.Name, have.IPFamilies)
	}
	return nil
}

// agentPackage is the agent as a program, of few packages.
const agentPackage = "github.com/netproof/netproof/probes/podagent/netproof-agent"

// agentProgram is the program of the probe pods: this test binary, or, as an image without libraries cannot run one
// that is dynamically linked, and no node one that is not for Linux, the agent alone, built here.
func (s *suite) agentProgram() (string, error) {
	self, err := image.Running()
	if err == nil {
		if _, err = image.Architecture(self); !errors.Is(err, image.ErrDynamic) {
			return self, err
		}
	} else if !errors.Is(err, image.ErrNotLinux) {
		return "", err
	}
	dir, err := os.MkdirTemp("", "netproof-agent-")
	if err != nil {
		return "", fmt.Errorf("build the agent: %w", err)
	}
	s.cleanups = append(s.cleanups, func() error { return os.RemoveAll(dir) })
	program := filepath.Join(dir, "netproof-agent")
	cmd := exec.CommandContext(s.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, agentPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
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
