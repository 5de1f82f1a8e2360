package kind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kindexec "sigs.k8s.io/kind/pkg/exec"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/remote"
	"github.com/netproof/netproof/harness/cni"
	"github.com/netproof/netproof/harness/cni/install"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/model"
)

var (
	// ErrExists is matched when the name of a new cluster is taken.
	ErrExists = errors.New("a cluster of this name exists")
	// ErrNotFound is matched by errors about a name that no cluster has.
	ErrNotFound = errors.New("no such cluster")
	// ErrNotOurs is matched when something was not made by netproof, which therefore neither uses nor removes it.
	ErrNotOurs = errors.New("netproof did not create it")
)

// CreateError says why a cluster did not get ready.
type CreateError struct {
	Name string
	Err  error
	// Logs is the folder of its logs, empty if there are none.
	Logs string
}

func (e *CreateError) Error() string {
	text := "create kind cluster " + e.Name + ": " + e.Err.Error()
	if e.Logs != "" {
		text += "\n  logs: " + e.Logs
	}
	return text
}

// Unwrap gives the reason.
func (e *CreateError) Unwrap() error { return e.Err }

// Provider makes kind clusters.
type Provider struct{ opts Options }

var _ cluster.Provider = (*Provider)(nil)

// New makes a provider. The error is about the options; the machine is looked at by Create, and by [Doctor].
func New(opts Options) (*Provider, error) {
	if _, err := opts.plan(cluster.Options{}); err != nil {
		return nil, err
	}
	return &Provider{opts: opts}, nil
}

// Create implements [cluster.Provider]. The cluster is a [*Cluster].
func (p *Provider) Create(ctx context.Context, opts cluster.Options) (cluster.Cluster, error) {
	c, err := p.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Cluster is a running kind cluster.
type Cluster struct {
	*remote.Cluster
	run        *running
	name       string
	kubeconfig string
	// timeline is how the time until the cluster was ready was spent; empty for one that was there before.
	timeline []moment
}

var _ cluster.Capable = (*Cluster)(nil)

// Capabilities implements [cluster.Capable].
func (c *Cluster) Capabilities() (cni.Capabilities, bool) { return c.run.plugin.Capabilities() }

// Name is the name of the cluster, which may have been made up.
func (c *Cluster) Name() string { return c.name }

// Kubeconfig is the path of a file that gives access to the cluster; it goes with the cluster.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// moment is when something was done, counted from the call of Create.
type moment struct {
	what  string
	after time.Duration
}

// creation is a cluster in the making.
type creation struct {
	spec
	opts    Options
	engine  *engine.Engine
	info    engine.Info
	bundle  *install.Bundle
	dir     string
	started time.Time

	watchdog *watchdog
	maker    *maker

	executable string
	agent      v1.Image
	agentRef   string

	rest   *rest.Config
	client kubernetes.Interface

	mu       sync.Mutex
	timeline []moment
}

func (c *creation) moment(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timeline = append(c.timeline, moment{what, time.Since(c.started)})
}

// Start is Create with the concrete type as its result.
func (p *Provider) Start(ctx context.Context, opts cluster.Options) (*Cluster, error) {
	if !initialized {
		return nil, errNoInit
	}
	s, err := p.opts.plan(opts)
	if err != nil {
		return nil, err
	}
	c := &creation{spec: s, opts: p.opts, started: time.Now()}
	if err := c.prepare(ctx); err != nil {
		return nil, &CreateError{Name: s.name, Err: err}
	}
	// From here on there is something to remove.
	made, err := c.create(ctx)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return made, nil
}

// prepare does all that can go wrong without leaving anything.
func (c *creation) prepare(ctx context.Context) error {
	c.progress("looking at the container engine")
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		e, err := engine.Detect(gctx, c.opts.Runtime)
		if err != nil {
			return err
		}
		c.engine = e
		if err := c.checkEngine(gctx); err != nil {
			return err
		}
		return ensureNodeImage(gctx, e, c.image, c.progress)
	})
	group.Go(func() (err error) {
		c.bundle, err = loadBundle(gctx, c.spec, c.opts.CNI)
		return err
	})
	group.Go(func() (err error) {
		c.executable, c.agent, c.agentRef, err = agentImage(c.opts.Executable)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	c.moment("engine, images and plugin looked at")
	return nil
}

// checkEngine refuses an engine on which no cluster would get ready.
func (c *creation) checkEngine(ctx context.Context) error {
	facts := gather(ctx, c.engine, nil)
	facts.Workers, facts.Families = c.workers, c.families
	c.info = facts.Info
	if facts.InfoErr != nil {
		return facts.InfoErr
	}
	return refuse(Judge(facts))
}

// agentImage assembles the image of probe pods.
func agentImage(executable string) (path string, img v1.Image, ref string, err error) {
	if path = executable; path == "" {
		if path, err = image.Running(); err != nil {
			return "", nil, "", err
		}
	}
	img, ref, err = image.Agent(path)
	return path, img, ref, err
}

// create makes the cluster. What can be done side by side is: kind makes one node after the other's control plane, and
// each step of ours waits only for what it needs of that.
func (c *creation) create(ctx context.Context) (*Cluster, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if err := c.build(ctx); err != nil {
		return nil, err
	}
	made, err := c.finish(ctx)
	if err != nil {
		return nil, err
	}
	c.moment("ready")
	made.timeline = c.timeline
	return made, nil
}

// begin makes what a cluster is found by, and what removes it when this process dies.
func (c *creation) begin(ctx context.Context) error {
	var err error
	if c.dir, err = os.MkdirTemp("", "netproof-kind-"); err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	if err := c.refuseForeign(ctx); err != nil {
		return err
	}
	if c.watchdog, err = startWatchdog(c.engine, watchdogTask{Engine: c.engine.Name, Name: c.name, Files: []string{c.dir}}); err != nil {
		return err
	}
	return createNetwork(ctx, c.engine, c.spec, time.Now())
}

// refuseForeign refuses a name that another tool's cluster has.
func (c *creation) refuseForeign(ctx context.Context) error {
	own, foreign, err := containersOf(ctx, c.engine, c.name)
	if err != nil {
		return err
	}
	if len(own)+len(foreign) > 0 {
		return fmt.Errorf("cluster %s: %w: take another name, or remove it with kind delete cluster --name %s", c.name, ErrExists, c.name)
	}
	return nil
}

func (c *creation) build(ctx context.Context) error {
	config, err := kindConfig(c.spec, c.info.Cgroup)
	if err != nil {
		return err
	}
	c.maker, err = startMaker(c.engine, makerTask{Engine: c.engine.Name, Name: c.name, Config: config, Kubeconfig: c.kubeconfigFile()}, c.progress)
	if err != nil {
		return err
	}
	// The first error ends the others; theirs are then only consequences.
	group, gctx := errgroup.WithContext(ctx)
	pluginLoaded := make(chan struct{})
	group.Go(func() error {
		if err := c.maker.done(gctx); err != nil {
			return err
		}
		c.moment("kind is done")
		return nil
	})
	group.Go(func() error {
		if err := c.maker.wait(gctx, phaseNodes); err != nil {
			return err
		}
		c.moment("nodes started")
		return c.loadImages(gctx, func() { close(pluginLoaded) })
	})
	group.Go(func() error {
		if err := c.maker.wait(gctx, phaseControlPlane); err != nil {
			return err
		}
		c.moment("control plane started")
		var err error
		if _, c.rest, c.client, err = connect(gctx, c.engine, c.name); err != nil {
			return err
		}
		if err := oneCoreDNS(gctx, c.client); err != nil {
			return err
		}
		// A pod that comes before its image would try to pull it, and then wait before it tries again.
		select {
		case <-pluginLoaded:
		case <-gctx.Done():
			return context.Cause(gctx)
		}
		if err := c.bundle.Apply(gctx, c.rest); err != nil {
			return err
		}
		c.moment("network plugin applied")
		return nil
	})
	return group.Wait()
}

// oneCoreDNS leaves one of kubeadm's two replicas: a second one is for clusters that outlive a node, and would start
// just when the network plugin does. As long as no node is ready neither of them has.
func oneCoreDNS(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.AppsV1().Deployments(metav1.NamespaceSystem).Patch(ctx, "coredns", types.MergePatchType,
		[]byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{FieldManager: install.FieldManager})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("scale CoreDNS: %w", err)
	}
	return nil
}

// loadImages puts into the nodes what they would otherwise pull, first what the network plugin needs.
func (c *creation) loadImages(ctx context.Context, pluginLoaded func()) error {
	all, workers, err := nodeNames(ctx, c.engine, c.name)
	if err != nil {
		return err
	}
	l := &loading{engine: c.engine, plugin: c.bundle.Images(), agent: c.agent, agentRef: c.agentRef}
	if err := l.loadPlugin(ctx, all); err != nil {
		return err
	}
	c.moment("images of the network plugin are there")
	pluginLoaded()
	if err := l.loadAgent(ctx, workers); err != nil {
		return err
	}
	c.moment("agent image is there")
	return nil
}

func (c *creation) kubeconfigFile() string { return filepath.Join(c.dir, "kubeconfig") }

// nodeNames are the names of a cluster's nodes, and of those among them that take pods.
func nodeNames(ctx context.Context, e *engine.Engine, name string) (all, workers []string, err error) {
	nodes, err := containersWith(ctx, e, labelKind+"="+name)
	if err != nil {
		return nil, nil, fmt.Errorf("list nodes: %w", err)
	}
	for _, n := range nodes {
		all = append(all, n.Name)
		if n.Config.Labels[labelRole] == roleWorker {
			workers = append(workers, n.Name)
		}
	}
	return all, workers, nil
}

// apiServerPort is the port of the API server in the control plane's container.
const apiServerPort = "6443/tcp"

// kubeconfigOf gives the content of a kubeconfig, as kind does but with few calls: it is asked for while the nodes
// start, when each takes its time from them. The context is called as with kind.
func kubeconfigOf(ctx context.Context, e *engine.Engine, name string) ([]byte, error) {
	node := name + "-" + roleControlPlane
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("get access to cluster %s: %w", name, engine.Explain(e.Name, err))
	}
	all, err := inspectContainers(ctx, e, node)
	if err != nil {
		return fail(err)
	}
	if len(all) != 1 {
		return fail(fmt.Errorf("there is no container %s", node))
	}
	server, err := all[0].endpoint()
	if err != nil {
		return fail(err)
	}
	text, err := e.Output(ctx, "exec", node, "cat", "/etc/kubernetes/admin.conf")
	if err != nil {
		return fail(err)
	}
	config, err := clientcmd.Load([]byte(text))
	if err != nil {
		return fail(err)
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil || config.AuthInfos[current.AuthInfo] == nil {
		return fail(errors.New("its admin.conf names no cluster or user"))
	}
	key := "kind-" + name
	out := clientcmdapi.NewConfig()
	out.Clusters[key], out.AuthInfos[key], out.CurrentContext = config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo], key
	out.Clusters[key].Server = "https://" + server
	out.Contexts[key] = &clientcmdapi.Context{Cluster: key, AuthInfo: key}
	content, err := clientcmd.Write(*out)
	if err != nil {
		return fail(err)
	}
	return content, nil
}

// endpoint is where the API server in a container is reached from this machine. Docker Desktop tells by a label what it
// really published.
func (c container) endpoint() (string, error) {
	if label := c.Config.Labels["desktop.docker.io/ports/"+apiServerPort]; label != "" {
		return label, nil
	}
	for _, p := range c.NetworkSettings.Ports[apiServerPort] {
		if p.HostPort != "" {
			return net.JoinHostPort(p.HostIP, p.HostPort), nil
		}
	}
	return "", fmt.Errorf("container %s publishes no port of an API server: is it running?", c.Name)
}

// connect makes clients for an API server, which may just have come up.
func connect(ctx context.Context, e *engine.Engine, name string) (content []byte, config *rest.Config, client kubernetes.Interface, err error) {
	if content, err = kubeconfigOf(ctx, e, name); err != nil {
		return nil, nil, nil, err
	}
	if config, err = clientcmd.RESTConfigFromKubeConfig(content); err == nil {
		config.UserAgent, config.WarningHandler, config.QPS = "netproof", rest.NoWarnings{}, -1
		client, err = cluster.Connect(config)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("get access to cluster %s: %w", name, err)
	}
	return content, config, client, nil
}

// finish waits until the cluster is ready, and makes it one that runs can use.
func (c *creation) finish(ctx context.Context) (*Cluster, error) {
	c.progress("waiting for nodes and network plugin")
	if err := awaitNodes(ctx, c.client, c.workers+1); err != nil {
		return nil, err
	}
	c.moment("nodes ready")
	plugin, err := awaitPlugin(ctx, c.client, plugins[c.cni]())
	if err != nil {
		return nil, err
	}
	c.moment("network plugin ready")
	if err := markReady(ctx, c.engine, c.name); err != nil {
		return nil, err
	}
	kubeconfig := c.kubeconfigFile()
	end := c.close
	if c.opts.Keep {
		content, err := os.ReadFile(kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig of cluster %s: %w", c.name, err)
		}
		if kubeconfig, err = keepKubeconfig(c.name, content); err != nil {
			return nil, err
		}
		end = c.keep
	}
	r := &running{
		engine: c.engine, name: c.name, executable: c.executable, nodeImage: c.image, client: c.client, families: c.families,
		plugin: plugin, end: end,
	}
	made, err := assemble(ctx, r, c.rest, remote.Config{Image: c.agentRef, Progress: c.progress, Direct: c.opts.Direct})
	if err != nil {
		return nil, err
	}
	made.kubeconfig = kubeconfig
	if c.opts.Keep {
		// It is complete, and stays whatever becomes of the run. From now on others can use it.
		if err := made.run.hold(ctx, made.RunID(), c.progress); err != nil {
			return nil, err
		}
		c.progress(fmt.Sprintf("kept: export KUBECONFIG=%s", kubeconfig))
		return made, c.watchdog.release()
	}
	return made, nil
}

// probeTimeout is how long an answer may take. All nodes are on one machine, so the network takes no time; the programs
// share its processors with a control plane.
const probeTimeout = 300 * time.Millisecond

// assemble makes a cluster for runs out of one that is ready.
func assemble(ctx context.Context, r *running, config *rest.Config, cfg remote.Config) (*Cluster, error) {
	info, err := describe(r)
	if err != nil {
		return nil, err
	}
	workers, err := remote.Nodes(ctx, r.client)
	if err != nil {
		return nil, err
	}
	// The order of their numbers: worker, worker2, worker10.
	slices.SortFunc(workers, func(a, b model.Node) int { return compareNodes(a.Name, b.Name) })
	for i := range workers {
		workers[i].Index = i
	}
	info.Nodes = len(workers)
	own, _, err := containersOf(ctx, r.engine, r.name)
	if err != nil {
		return nil, err
	}
	for _, container := range own {
		if container.Config.Labels[labelKind] == r.name {
			r.nodes = append(r.nodes, container.Name)
		}
	}
	r.rest, r.workers, r.equipped, r.hosts = config, workers, map[string]bool{}, map[string]string{}
	cfg.RESTConfig, cfg.Info, cfg.Nodes, cfg.Provider = config, info, workers, r
	cfg.ProbeTimeout = probeTimeout
	inner, err := remote.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Cluster{Cluster: inner, run: r, name: r.name}, nil
}

// describe says what the cluster is, as written into reports.
func describe(r *running) (model.Cluster, error) {
	version, err := r.client.Discovery().ServerVersion()
	if err != nil {
		return model.Cluster{}, fmt.Errorf("ask the API server for its version: %w", err)
	}
	return model.Cluster{
		Provider: "kind", Name: r.name, CNI: model.CNI{Name: r.plugin.Name, Version: r.plugin.Version}, Kubernetes: version.GitVersion,
		IPFamilies: slices.Clone(r.families),
	}, nil
}

// close removes the cluster. When that fails, the watchdog has another try.
func (c *creation) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	err := remove(ctx, c.engine, c.name)
	if err != nil {
		return errors.Join(err, c.watchdog.abandon())
	}
	return errors.Join(c.watchdog.release(), os.RemoveAll(c.dir))
}

// keep lets go of a cluster that stays.
func (c *creation) keep(context.Context) error { return os.RemoveAll(c.dir) }

// fail removes what there is of a cluster that did not get ready, after its logs were saved, and makes the error one to
// act on.
func (c *creation) fail(ctx context.Context, err error) error {
	interrupted := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
	e := &CreateError{Name: c.name, Err: err}
	if ctx.Err() != nil {
		e.Err = fmt.Errorf("%w (it was at: %s)", context.Cause(ctx), c.last())
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if c.maker != nil && !interrupted && !errors.Is(err, ErrExists) {
		c.progress("exporting logs")
		if own, _, _ := containersOf(ctx, c.engine, c.name); len(own) > 0 {
			e.Err = c.diagnose(ctx, own, e.Err)
			e.Logs = c.logs
			errs = append(errs, exportLogs(ctx, c.engine, c.name, c.logs, c.client, e.Err))
		} else {
			e.Err = explainKind(e.Err)
		}
	}
	errs = append(errs, c.abort(ctx, !errors.Is(err, ErrExists)))
	if err := errors.Join(errs...); err != nil {
		e.Err = fmt.Errorf("%w\n%w", e.Err, err)
	}
	return e
}

// abort removes what there is.
func (c *creation) abort(ctx context.Context, ours bool) error {
	if c.maker != nil {
		c.progress("removing the cluster")
		c.maker.kill()
		removeUnder(ctx, c.engine, c.name, c.maker.quiet, watchdogWait)
		<-c.maker.ended
	}
	if c.watchdog == nil || !ours {
		var err error
		if c.watchdog != nil {
			err = c.watchdog.release()
		}
		return errors.Join(err, os.RemoveAll(c.dir))
	}
	return c.close(ctx)
}

// last is what was done last.
func (c *creation) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.maker != nil {
		if said, ok := c.maker.said.Load().(string); ok {
			return strings.Trim(said, " •✓.")
		}
	}
	if len(c.timeline) == 0 {
		return "the beginning"
	}
	return c.timeline[len(c.timeline)-1].what
}

// diagnose looks for the cause of a failure in the error itself, and then in what nodes say.
func (c *creation) diagnose(ctx context.Context, own []container, err error) error {
	explained := explainKind(err)
	if _, known := errors.AsType[*engine.Problem](explained); known {
		return explained
	}
	for _, node := range own {
		said, _ := c.engine.Output(ctx, "logs", "--tail", "200", node.Name)
		if node.State.Running {
			kubelet, _ := c.engine.Output(ctx, "exec", node.Name, "journalctl", "--no-pager", "-q", "-n", "200", "-p", "info", "-u", "kubelet", "-u", "containerd")
			said += kubelet
		}
		if p := engine.RecognizeNode(c.engine.Name, said); p != nil {
			p.Err = err
			return p
		}
		if !node.State.Running {
			return fmt.Errorf("%w\n  node %s ended with exit code %d: %s", err, node.Name, node.State.ExitCode, oneLine(engine.LastLines(said, 3)))
		}
	}
	return err
}

// explainKind recognises the cause of an error of kind's.
func explainKind(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if k, ok := errors.AsType[*kindError](err); ok {
		text = k.message + "\n" + k.output
	} else if run := kindexec.RunErrorForError(err); run != nil {
		text += "\n" + string(run.Output)
		err = fmt.Errorf("%w: %s", err, oneLine(engine.LastLines(string(run.Output), 5)))
	}
	if _, known := errors.AsType[*engine.Problem](err); known {
		return err
	}
	if p := engine.Recognize("the container engine", text); p != nil {
		p.Err = err
		return p
	}
	return err
}
