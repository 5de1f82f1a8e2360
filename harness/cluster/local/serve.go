package local

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netns"

	"github.com/netproof/netproof/harness/cluster/local/nodeagent"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/nsagent"
)

var _ nodeagent.Endpoint = (*nsagent.Agent)(nil)

// serve makes an endpoint in a network namespace, which may be closed afterwards. It implements [nodeagent.Serve].
func (c *Cluster) serve(network *os.File, identity probes.Identity, ports []model.Port) (nodeagent.Endpoint, error) {
	agent, err := c.probing.NewAgent(nsagent.Config{Identity: identity, Namespace: netns.NsHandle(network.Fd())})
	if err != nil {
		return nil, fmt.Errorf("make agent of %s: %w", identity.Endpoint, err)
	}
	err = agent.Listen(ports...)
	switch {
	case err == nil:
		return agent, nil
	case errors.Is(err, nsagent.ErrNotSupported):
		return agent, fmt.Errorf("%w: %w", nodeagent.ErrUnsupportedPorts, err)
	}
	return nil, errors.Join(fmt.Errorf("serve %s: %w", identity.Endpoint, err), agent.Close())
}
