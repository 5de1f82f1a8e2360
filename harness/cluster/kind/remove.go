package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
)

// labelKind and labelRole are what kind puts on the containers of nodes.
const (
	labelKind = "io.x-k8s.kind.cluster"
	labelRole = "io.x-k8s.kind.role"
)

// Roles of nodes, as kind calls them.
const (
	roleControlPlane = "control-plane"
	roleWorker       = "worker"
)

// container has the fields of container inspect that are read.
type container struct {
	ID      string `json:"Id"`
	Name    string
	Created time.Time
	State   struct {
		Status  string
		Running bool
		Pid     int
		// OOMKilled and ExitCode say how it ended.
		OOMKilled bool
		ExitCode  int
	}
	Config struct {
		Labels map[string]string
		Image  string
	}
	HostConfig struct {
		NetworkMode string
	}
	NetworkSettings struct {
		Networks map[string]struct {
			IPAddress, GlobalIPv6Address string
		}
		// Ports are those that are published, as 6443/tcp.
		Ports map[string][]struct {
			HostIP   string `json:"HostIp"`
			HostPort string
		}
	}
}

// on tells whether a container belongs to a network, also if it was never started.
func (c container) on(network string) bool {
	_, connected := c.NetworkSettings.Networks[network]
	return connected || c.HostConfig.NetworkMode == network
}

// containersWith lists containers by a label, stopped ones too.
func containersWith(ctx context.Context, e *engine.Engine, label string) ([]container, error) {
	ids, err := e.Lines(ctx, "ps", "-a", "-q", "--no-trunc", "--filter", "label="+label)
	if err != nil {
		return nil, engine.Explain(e.Name, err)
	}
	return inspectContainers(ctx, e, ids...)
}

// inspectContainers looks at containers. Those that have gone in the meantime are left out.
func inspectContainers(ctx context.Context, e *engine.Engine, ids ...string) ([]container, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	out, err := e.Output(ctx, append([]string{"inspect", "--type=container"}, ids...)...)
	if err != nil && !engine.IsGone(err) {
		return nil, engine.Explain(e.Name, err)
	}
	var all []container
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("read containers: %w", err)
	}
	for i := range all {
		all[i].Name = strings.TrimPrefix(all[i].Name, "/")
	}
	slices.SortFunc(all, func(a, b container) int { return compareNodes(a.Name, b.Name) })
	return all, nil
}

// compareNodes orders names by their number, and those without one first: worker, worker2, worker10.
func compareNodes(a, b string) int {
	cut := func(s string) (string, int) {
		digits := strings.TrimRight(s, "0123456789")
		n := 0
		for _, d := range s[len(digits):] {
			n = min(n*10+int(d-'0'), 1<<30)
		}
		return digits, n
	}
	stemA, numberA := cut(a)
	stemB, numberB := cut(b)
	if c := strings.Compare(stemA, stemB); c != 0 {
		return c
	}
	return numberA - numberB
}

// containersOf lists what belongs to a cluster: its nodes, and hosts beside it. Only containers on the cluster's own
// network do: another tool's cluster may have the same name.
func containersOf(ctx context.Context, e *engine.Engine, name string) (own, foreign []container, err error) {
	nodes, err := containersWith(ctx, e, labelKind+"="+name)
	if err != nil {
		return nil, nil, err
	}
	hosts, err := containersWith(ctx, e, LabelCluster+"="+name)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range append(nodes, hosts...) {
		if c.on(networkOf(name)) {
			own = append(own, c)
		} else {
			foreign = append(foreign, c)
		}
	}
	return own, foreign, nil
}

// removeContainers removes what there is of a cluster's containers, with their volumes, and tells how many that were.
func removeContainers(ctx context.Context, e *engine.Engine, name string) (int, error) {
	own, _, err := containersOf(ctx, e, name)
	if err != nil || len(own) == 0 {
		return 0, err
	}
	args := []string{"rm", "-f", "-v"}
	for _, c := range own {
		args = append(args, c.ID)
	}
	if _, err := e.Change(ctx, nil, args...); err != nil && !engine.IsGone(err) {
		return len(own), fmt.Errorf("remove containers of cluster %s: %w", name, engine.Explain(e.Name, err))
	}
	if e.Name != engine.Podman {
		return len(own), nil
	}
	// With Podman, kind gives nodes named volumes that do not go with the container.
	for _, c := range own {
		volumes, err := e.Lines(ctx, "volume", "ls", "-q", "--filter", "label="+c.Name)
		if err != nil || len(volumes) == 0 {
			continue
		}
		if _, err := e.Change(ctx, nil, append([]string{"volume", "rm", "-f"}, volumes...)...); err != nil && !engine.IsGone(err) {
			return len(own), fmt.Errorf("remove volumes of cluster %s: %w", name, err)
		}
	}
	return len(own), nil
}

const (
	// removeTimeout bounds the removal of a cluster.
	removeTimeout = 3 * time.Minute
	// removeRounds is how often containers are looked for again, because some were still there, or there was an error.
	removeRounds = 6
)

// remove removes all of a cluster: containers, volumes and last the network, by which it is found as long as anything
// is left. Nothing that makes containers may be running any more. What is not there is no error.
func remove(ctx context.Context, e *engine.Engine, name string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	var err error
	for range removeRounds {
		var n int
		if n, err = removeContainers(ctx, e, name); err != nil || n > 0 {
			continue
		}
		if err = removeNetwork(ctx, e, name); err == nil {
			return nil
		}
	}
	if err == nil {
		err = errors.New("its containers come back")
	}
	return fmt.Errorf("remove cluster %s: %w", name, err)
}

// removeNetwork removes the network of a cluster, if it has the label.
func removeNetwork(ctx context.Context, e *engine.Engine, name string) error {
	n, there, err := inspectNetwork(ctx, e, networkOf(name))
	if err != nil || !there {
		return err
	}
	if m, ours := readMark(n.Labels); !ours || m.name != name {
		return fmt.Errorf("network %s: %w", networkOf(name), ErrNotOurs)
	}
	if _, err := e.Change(ctx, nil, "network", "rm", networkOf(name)); err != nil && !engine.IsGone(err) {
		return fmt.Errorf("remove network %s: %w", networkOf(name), err)
	}
	return nil
}
