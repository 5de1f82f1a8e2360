//go:build linux

package local

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/process"
)

// stopGrace is how long a program gets to end by itself.
const stopGrace = 5 * time.Second

// What follows breaks a cluster on purpose, so that tests can show that a broken cluster proves nothing.

// StopEnforcement ends the network plugin's program on a node in good order, and nothing starts it again. Rules that it
// has written stay; Health does not complain.
func (c *Cluster) StopEnforcement(index int) error {
	p, err := c.enforcer(index)
	if err != nil {
		return err
	}
	p.Stop(stopGrace)
	return nil
}

// KillEnforcement kills the network plugin's program on a node. From then on Health says so.
func (c *Cluster) KillEnforcement(ctx context.Context, index int) error {
	p, err := c.enforcer(index)
	if err != nil {
		return err
	}
	return kill(ctx, p)
}

// KillProgram kills a program by its name in [Cluster.Events], such as etcd. From then on Health says so.
func (c *Cluster) KillProgram(ctx context.Context, name string) error {
	p, err := c.program(name)
	if err != nil {
		return err
	}
	return kill(ctx, p)
}

func kill(ctx context.Context, p *process.Process) error {
	p.Kill()
	select {
	case <-p.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill %s: %w", p.Name(), ctx.Err())
	}
}

func (c *Cluster) enforcer(index int) (*process.Process, error) {
	n, err := c.node(index)
	if err != nil {
		return nil, err
	}
	name := c.network.enforcer(n.Node)
	if name == "" {
		return nil, fmt.Errorf("find enforcement on node %d: %s has no program there", index, c.opts.CNI)
	}
	return c.program(name)
}

func (c *Cluster) program(name string) (*process.Process, error) {
	for _, p := range c.processes.Processes() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("find program %s: the cluster has none of that name", name)
}

// HaltNodeAgent makes the agent of a node stop working: the pods that run there go on, but no pod is started, removed
// or reported on any more.
func (c *Cluster) HaltNodeAgent(index int) error {
	n, err := c.node(index)
	if err != nil {
		return err
	}
	n.agent.Halt()
	return nil
}

// StopServers ends the servers of a running pod, whose status goes on to say that it is ready.
func (c *Cluster) StopServers(pod *corev1.Pod) error {
	n, err := c.nodeOf(pod)
	if err != nil {
		return err
	}
	if err := n.agent.StopServers(pod.UID); err != nil {
		return podError("stop servers of", pod, err)
	}
	return nil
}

// DropTraffic drops every packet to and from a running pod, in the pod's own network namespace, but for what the pod
// sends to itself.
func (c *Cluster) DropTraffic(pod *corev1.Pod) error {
	n, err := c.nodeOf(pod)
	if err != nil {
		return err
	}
	network, err := n.agent.Network(pod.UID)
	if err != nil {
		return podError("find network of", pod, err)
	}
	const rules = `table inet netproof-fault {
	chain in { type filter hook input priority -300; policy drop; iif "lo" accept; }
	chain out { type filter hook output priority -300; policy drop; oif "lo" accept; }
}
`
	err = network.Do(func() error {
		nft := exec.Command(hosttools.Find("nft"), "-f", "-")
		nft.Stdin = bytes.NewBufferString(rules)
		if out, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
	if err != nil {
		return podError("drop traffic of", pod, err)
	}
	return nil
}
