//go:build linux

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
	unsupported, err := listen(agent.Listen, ports)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve %s: %w", identity.Endpoint, err), agent.Close())
	}
	if unsupported != nil {
		return agent, fmt.Errorf("%w: %w", nodeagent.ErrUnsupportedPorts, unsupported)
	}
	return agent, nil
}

// listen serves ports one by one: of several together, one error would hide what became of the others. unsupported
// tells of those for which this kernel lacks the protocol, err of those that it could serve and does not.
func listen(on func(...model.Port) error, ports []model.Port) (unsupported, err error) {
	for _, p := range ports {
		failed := on(p)
		if errors.Is(failed, nsagent.ErrNotSupported) {
			unsupported = errors.Join(unsupported, failed)
		} else {
			err = errors.Join(err, failed)
		}
	}
	return unsupported, err
}
