package kind

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/model"
)

// State is the state of a cluster, as far as can be told without its API server.
type State string

// The states. Incomplete clusters are being made or removed, or were left by a run that was killed together with its
// watchdog.
const (
	Ready      State = "ready"
	Incomplete State = "incomplete"
	// Stopped: no node runs. Degraded: some do not.
	Stopped  State = "stopped"
	Degraded State = "degraded"
)

// Info says what there is under a name.
type Info struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Kubernetes is the version, empty if the control plane does not run.
	Kubernetes string `json:"kubernetes,omitempty"`
	CNI        string `json:"cni"`
	// Nodes are those that take pods.
	Nodes      int              `json:"nodes"`
	IPFamilies []model.IPFamily `json:"ipFamilies"`
	Image      string           `json:"image"`
	Engine     string           `json:"engine"`
	Created    time.Time        `json:"created,omitzero"`
}

// readyFile is in the control plane's container from the moment on that the cluster is ready.
const readyFile = "/kind/netproof-ready"

func markReady(ctx context.Context, e *engine.Engine, name string) error {
	if _, err := e.Change(ctx, nil, "exec", name+"-"+roleControlPlane, "touch", readyFile); err != nil {
		return fmt.Errorf("mark cluster %s as ready: %w", name, engine.Explain(e.Name, err))
	}
	return nil
}

// List tells about the clusters that netproof has made with the engine, or for an empty name with any that answers, in
// the order of their names.
func List(ctx context.Context, runtime string) ([]Info, error) {
	engines, err := engine.All(ctx, runtime)
	if err != nil {
		return nil, err
	}
	var all []Info
	var silent []error
	for _, e := range engines {
		list, err := clustersOf(ctx, e)
		switch {
		case engine.IsSilent(err):
			silent = append(silent, err)
		case err != nil:
			return nil, err
		}
		all = append(all, list...)
	}
	if len(silent) == len(engines) {
		return nil, silent[0]
	}
	slices.SortFunc(all, func(a, b Info) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Engine, b.Engine))
	})
	return all, nil
}

// clustersOf are those that were made with one engine.
func clustersOf(ctx context.Context, e *engine.Engine) ([]Info, error) {
	ids, err := e.Lines(ctx, "network", "ls", "-q", "--filter", "label="+LabelCluster)
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", engine.Explain(e.Name, err))
	}
	if len(ids) == 0 {
		return nil, nil
	}
	out, err := e.Output(ctx, append([]string{"network", "inspect"}, ids...)...)
	if err != nil && !engine.IsGone(err) {
		return nil, fmt.Errorf("list clusters: %w", engine.Explain(e.Name, err))
	}
	var networks []network
	if err := json.Unmarshal([]byte(out), &networks); err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var infos []Info
	for _, n := range networks {
		if m, ours := readMark(n.Labels); ours && n.Name == networkOf(m.name) {
			info, err := look(ctx, e, m)
			if err != nil {
				return nil, err
			}
			infos = append(infos, info)
		}
	}
	return infos, nil
}

// look finds out the state of a cluster.
func look(ctx context.Context, e *engine.Engine, m mark) (Info, error) {
	info := Info{
		Name: m.name, State: Incomplete, CNI: m.cni, Nodes: m.workers, IPFamilies: m.families, Image: m.image, Engine: e.Name, Created: m.created,
	}
	own, _, err := containersOf(ctx, e, m.name)
	if err != nil {
		return info, err
	}
	nodes := nodesOf(own)
	if len(nodes) == 0 {
		return info, nil
	}
	var marks string
	for _, n := range nodes {
		if n.Config.Labels[labelRole] == roleControlPlane && n.State.Running {
			// A node that is being removed answers nothing.
			marks, _ = e.Output(ctx, "exec", n.Name, "sh", "-c", "cat /kind/version; test -e "+readyFile+" && echo && echo ready")
		}
	}
	info.State, info.Kubernetes = stateOf(nodes, m.workers+1, marks)
	return info, nil
}

// nodesOf leaves out the hosts beside a cluster.
func nodesOf(own []container) []container {
	return slices.DeleteFunc(slices.Clone(own), func(c container) bool { return c.Config.Labels[labelKind] == "" })
}

// stateOf judges by the nodes' containers, how many there should be, and what the control plane's container says: the
// version of Kubernetes, and whether the cluster was ready once.
func stateOf(nodes []container, want int, marks string) (State, string) {
	run := 0
	for _, n := range nodes {
		if n.State.Running {
			run++
		}
	}
	lines := strings.Fields(marks)
	version := ""
	if len(lines) > 0 {
		version = lines[0]
	}
	switch {
	case run == 0 && len(nodes) == want:
		return Stopped, version
	case len(lines) < 2 && run == len(nodes):
		return Incomplete, version
	case len(nodes) < want || run < len(nodes):
		return Degraded, version
	}
	return Ready, version
}

// locate finds the engine that a cluster was made with: of several, the first that has one of the name.
func locate(ctx context.Context, runtime, name string) (*engine.Engine, mark, error) {
	engines, err := engine.All(ctx, runtime)
	if err != nil {
		return nil, mark{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	var errs []error
	for _, e := range engines {
		m, err := find(ctx, e, name)
		if err == nil {
			return e, m, nil
		}
		if !errors.Is(err, ErrNotFound) && !engine.IsSilent(err) {
			return nil, mark{}, err
		}
		errs = append(errs, err)
	}
	// One that answers knows more than one that does not.
	i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, ErrNotFound) })
	return nil, mark{}, errs[max(i, 0)]
}

// find looks for a cluster that netproof has made.
func find(ctx context.Context, e *engine.Engine, name string) (mark, error) {
	if err := checkName(name); err != nil {
		return mark{}, err
	}
	n, there, err := inspectNetwork(ctx, e, networkOf(name))
	if err != nil {
		return mark{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	if there {
		m, ours := readMark(n.Labels)
		if ours && m.name == name {
			return m, nil
		}
		return mark{}, fmt.Errorf("network %s: %w", networkOf(name), ErrNotOurs)
	}
	_, foreign, err := containersOf(ctx, e, name)
	if err != nil {
		return mark{}, err
	}
	if len(foreign) > 0 {
		return mark{}, fmt.Errorf("cluster %s: %w: use it with --provider existing --context kind-%s, remove it with kind delete cluster --name %s",
			name, ErrNotOurs, name, name)
	}
	return mark{}, fmt.Errorf("cluster %s: %w: to see the clusters: netproof cluster list", name, ErrNotFound)
}

// Delete removes a cluster that netproof has made, whatever its state. The error matches [ErrNotOurs] for another one,
// and [ErrNotFound] for none.
func Delete(ctx context.Context, runtime, name string) error {
	e, _, err := locate(ctx, runtime, name)
	if err != nil {
		return fmt.Errorf("delete %w", err)
	}
	if err := remove(context.WithoutCancel(ctx), e, name); err != nil {
		return err
	}
	path, err := kubeconfigPath(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete cluster %s: %w", name, err)
	}
	return nil
}

// Kubeconfig gives the content of a file that gives access to a cluster which netproof has made.
func Kubeconfig(ctx context.Context, runtime, name string) ([]byte, error) {
	e, _, err := locate(ctx, runtime, name)
	if err != nil {
		return nil, err
	}
	return kubeconfigOf(ctx, e, name)
}

// kubeconfigPath is where the kubeconfig of a cluster that is kept lies: never in the user's own.
func kubeconfigPath(name string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the kubeconfig of cluster %s: %w", name, err)
	}
	return filepath.Join(dir, "netproof", "kind", name+".kubeconfig"), nil
}

// keepKubeconfig writes a kubeconfig to where it can stay, and returns that path.
func keepKubeconfig(name string, content []byte) (string, error) {
	path, err := kubeconfigPath(name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep kubeconfig of cluster %s: %w", name, err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("keep kubeconfig of cluster %s: %w", name, err)
	}
	return path, nil
}

// Attach gives a cluster that was kept to a run, after it was found to be ready. Closing it leaves it as it is.
func (p *Provider) Attach(ctx context.Context, name string) (*Cluster, error) {
	c, err := p.attach(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("attach to %w", err)
	}
	return c, nil
}

func (p *Provider) attach(ctx context.Context, name string) (*Cluster, error) {
	e, m, err := locate(ctx, p.opts.Runtime, name)
	if err != nil {
		return nil, err
	}
	info, err := look(ctx, e, m)
	if err != nil {
		return nil, err
	}
	switch info.State {
	case Incomplete:
		return nil, fmt.Errorf("cluster %s: it never got ready: delete it with netproof cluster delete %s", name, name)
	case Stopped, Degraded:
		return nil, fmt.Errorf("cluster %s: it is %s: start its nodes with %s start, or delete it with netproof cluster delete %s",
			name, info.State, e.Name, name)
	}
	progress := p.opts.Progress
	if progress == nil {
		progress = func(string) {}
	}
	progress("looking whether cluster " + name + " is ready")
	kubeconfig, config, client, err := connect(ctx, e, name)
	if err != nil {
		return nil, err
	}
	executable, agentRef, err := p.attachImage(ctx, e, name)
	if err != nil {
		return nil, err
	}
	if err := awaitNodes(ctx, client, m.workers+1); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	// The one that was installed may have been replaced by hand, but not by two.
	installed, known := plugins[m.cni]
	if !known {
		return nil, fmt.Errorf("cluster %s: its network plugin %q is not one of this netproof's", name, m.cni)
	}
	plugin, err := awaitPlugin(ctx, client, installed())
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	r := &running{
		engine: e, name: name, executable: executable, nodeImage: m.image, client: client, families: m.families, plugin: plugin,
		end: func(context.Context) error { return nil },
	}
	made, err := assemble(ctx, r, config, remote.Config{Image: agentRef, Progress: progress, Direct: p.opts.Direct})
	if err != nil {
		return nil, err
	}
	if err := r.hold(ctx, made.RunID(), progress); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	// A control plane that was started again may have another port.
	if made.kubeconfig, err = keepKubeconfig(name, kubeconfig); err != nil {
		return nil, errors.Join(err, made.Close(context.WithoutCancel(ctx)))
	}
	return made, nil
}

// attachImage makes sure that the workers have the image of this executable; it may be another one than when the
// cluster was made.
func (p *Provider) attachImage(ctx context.Context, e *engine.Engine, name string) (executable, ref string, err error) {
	executable, img, ref, err := agentImage(p.opts.Executable)
	if err != nil {
		return "", "", err
	}
	_, workers, err := nodeNames(ctx, e, name)
	if err != nil {
		return "", "", err
	}
	l := &loading{engine: e, agent: img, agentRef: ref}
	return executable, ref, l.loadAgent(ctx, workers)
}
