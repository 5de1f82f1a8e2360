package kind

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/model"
)

// Labels on the network of a cluster, and the first one on all containers beside the nodes.
const (
	// LabelCluster holds the name of the cluster.
	LabelCluster = "netproof.dev/cluster"
	// LabelCNI holds the name of the network plugin.
	LabelCNI = "netproof.dev/cni"
	// LabelFamilies holds the IP families, joined by dots, the primary one first.
	LabelFamilies = "netproof.dev/ip-families"
	// LabelWorkers holds the number of nodes that take pods.
	LabelWorkers = "netproof.dev/workers"
	// LabelImage holds the node image.
	LabelImage = "netproof.dev/node-image"
	// LabelCreated holds the time in the form of RFC 3339.
	LabelCreated = "netproof.dev/created"
)

// networkPrefix and the name of a cluster make the name of its network.
const networkPrefix = "netproof-"

func networkOf(name string) string { return networkPrefix + name }

// networkEnv are the variables that make kind use another network than its own.
var networkEnv = map[string]string{
	engine.Docker: "KIND_EXPERIMENTAL_DOCKER_NETWORK",
	engine.Podman: "KIND_EXPERIMENTAL_PODMAN_NETWORK",
}

// labels are those of the network of a cluster.
func (s spec) labels(now time.Time) map[string]string {
	families := make([]string, len(s.families))
	for i, f := range s.families {
		families[i] = string(f)
	}
	return map[string]string{
		LabelCluster:  s.name,
		LabelCNI:      s.cni,
		LabelFamilies: strings.Join(families, "."),
		LabelWorkers:  strconv.Itoa(s.workers),
		LabelImage:    s.image,
		LabelCreated:  now.UTC().Format(time.RFC3339),
	}
}

// mark is what the labels of a network say of its cluster.
type mark struct {
	name, cni, image string
	families         []model.IPFamily
	workers          int
	created          time.Time
}

// readMark reads labels; false means that netproof has not set them.
func readMark(labels map[string]string) (mark, bool) {
	m := mark{name: labels[LabelCluster], cni: labels[LabelCNI], image: labels[LabelImage]}
	if m.name == "" {
		return m, false
	}
	for f := range strings.SplitSeq(labels[LabelFamilies], ".") {
		if f != "" {
			m.families = append(m.families, model.IPFamily(f))
		}
	}
	// Both are for information: what cannot be read is left out.
	m.workers, _ = strconv.Atoi(labels[LabelWorkers])
	m.created, _ = time.Parse(time.RFC3339, labels[LabelCreated])
	return m, true
}

// network has the fields of network inspect that are read. Docker writes the names of fields with capitals and Podman
// without; Go's decoder takes both.
type network struct {
	Name   string
	Labels map[string]string
}

// inspectNetwork looks at a network; false means that there is none.
func inspectNetwork(ctx context.Context, e *engine.Engine, name string) (network, bool, error) {
	out, err := e.Output(ctx, "network", "inspect", name)
	if err != nil {
		if engine.IsGone(err) {
			return network{}, false, nil
		}
		return network{}, false, engine.Explain(e.Name, err)
	}
	var all []network
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return network{}, false, fmt.Errorf("read network %s: %w", name, err)
	}
	// The argument may also be the beginning of an identifier.
	for _, n := range all {
		if n.Name == name {
			return n, true, nil
		}
	}
	return network{}, false, nil
}

const (
	// subnetAttempts is how many IPv6 networks are tried before it is given up.
	subnetAttempts = 5
	// linkMTU is Docker's default, and what is assumed where it cannot be asked.
	defaultBridge = "bridge"
)

var (
	overlaps = regexp.MustCompile(`(?i)pool overlaps|overlapping (ip|address|ipv6)|networks have overlapping|already used on the host|being used by`)
	exists   = regexp.MustCompile(`(?i)network with name \S+ already exists|network name \S+ already used|the network \S+ is used`)
)

// createNetwork makes the network of a cluster, like kind would, with labels. A network with IPv6 is made where the
// engine has it, for IPv4 clusters too, as kind does; where it is needed and cannot be had, that is the error.
func createNetwork(ctx context.Context, e *engine.Engine, s spec, now time.Time) error {
	name := networkOf(s.name)
	if _, there, err := inspectNetwork(ctx, e, name); err != nil {
		return err
	} else if there {
		return fmt.Errorf("cluster %s: %w: delete it with netproof cluster delete %s, use it with --cluster %s, or take another name", s.name, ErrExists, s.name, s.name)
	}
	args := []string{"network", "create", "--driver=bridge"}
	labels := s.labels(now)
	for _, key := range []string{LabelCluster, LabelCNI, LabelFamilies, LabelWorkers, LabelImage, LabelCreated} {
		args = append(args, "--label", key+"="+labels[key])
	}
	if e.Name == engine.Docker {
		args = append(args, "-o", "com.docker.network.bridge.enable_ip_masquerade=true")
		if mtu := defaultMTU(ctx, e); mtu > 0 {
			args = append(args, "-o", fmt.Sprintf("com.docker.network.driver.mtu=%d", mtu))
		}
	}
	var err error
	for attempt := range subnetAttempts {
		if _, err = e.Change(ctx, nil, append(slices.Clone(args), "--ipv6", "--subnet", subnetOf(name, attempt).String(), name)...); err == nil {
			return nil
		}
		if !overlaps.MatchString(engine.OutputOf(err)) {
			break
		}
	}
	if exists.MatchString(engine.OutputOf(err)) {
		return fmt.Errorf("cluster %s: %w", s.name, ErrExists)
	}
	problem, known := errors.AsType[*engine.Problem](engine.Explain(e.Name, err))
	if known && problem.Kind == engine.NoIPv6 && !slices.Contains(s.families, model.IPv6) {
		_, err = e.Change(ctx, nil, append(args, name)...)
	}
	if err != nil {
		return fmt.Errorf("make network %s: %w", name, engine.Explain(e.Name, err))
	}
	return nil
}

// defaultMTU is that of the engine's default network, 0 if it does not say.
func defaultMTU(ctx context.Context, e *engine.Engine) int {
	out, err := e.Output(ctx, "network", "inspect", defaultBridge, "-f", `{{ index .Options "com.docker.network.driver.mtu" }}`)
	if err != nil {
		return 0
	}
	mtu, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return 0
	}
	return mtu
}

// subnetOf derives an IPv6 network from a name, within the unique local addresses (RFC 4193), as likely as not to be
// free.
func subnetOf(name string, attempt int) netip.Prefix {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", name, attempt))
	address := [16]byte{0: 0xfd}
	copy(address[1:8], sum[:7])
	return netip.PrefixFrom(netip.AddrFrom16(address), 64)
}
