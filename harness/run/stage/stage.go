package stage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/probes"
)

// APIConcurrency bounds the calls to the API server that are under way at once.
const APIConcurrency = 16

// Stage is what a scenario is played on: namespaces, pods and services that run, and the policies in force. It knows
// what the run made, so that it can show that nothing else changed, and undo it.
type Stage struct {
	cluster  cluster.Cluster
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	mapper   meta.ResettableRESTMapper
	watch    *podWatch
	families []model.IPFamily
	// lane is the one that this is the stage of, and mine selects what it made.
	lane  Lane
	mine  string
	names names

	mu sync.Mutex
	// declared is the topology as last set up or changed, with the addresses and nodes that the pods were given.
	declared model.Topology
	running  map[model.Endpoint]*corev1.Pod
	agents   map[model.Endpoint]probes.Agent
	services map[model.Endpoint]*corev1.Service
	// made are the namespaces that the run made, with their UIDs.
	made map[string]types.UID
	// idle are namespaces that the run made for an earlier topology, with their labels.
	idle map[string]model.Labels
	// unsupported says why there is no agent at nodes or hosts where this cluster cannot have one.
	unsupported map[model.Endpoint]string
	policies    map[policy.Ref]inForce
	hosts       map[string]cluster.Host
	// shared says that others use the cluster as well.
	shared bool
	// lent are the namespaces of the cluster that the run was given, where it may look at no others and make none.
	lent []string
	// rival are the kinds of policies that others may have, beside NetworkPolicies.
	rival rivalKinds
	// found are all labels that namespaces which the run did not make had before it.
	found map[string]model.Labels
}

// Options say whose stage it is, and where it may be.
type Options struct {
	Lane Lane
	// Shared says that others use the cluster as well.
	Shared bool
	// Namespaces are those that the run was lent; with any it makes none.
	Namespaces []string
	// prefix goes before the names of namespaces.
	NamespacePrefix string
}

// New prepares an empty stage on a cluster.
func New(ctx context.Context, c cluster.Cluster, opts Options) (*Stage, error) {
	cfg := c.RESTConfig()
	cfg.QPS = -1 // the bound is apiConcurrency
	client, err := cluster.Connect(cfg)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	names := names{opts.NamespacePrefix}
	lent := cluster.LentTo(opts.Namespaces, opts.NamespacePrefix)
	mine := cluster.LaneSelector(opts.Lane.RunID, opts.Lane.Number)
	watch, err := watchPods(ctx, client, scopes(lent), mine, names)
	if err != nil {
		return nil, err
	}
	return &Stage{
		cluster: c, client: client, dynamic: dyn, watch: watch, shared: opts.Shared, lent: lent, families: c.Info().IPFamilies, lane: opts.Lane, mine: mine, names: names,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		running: map[model.Endpoint]*corev1.Pod{}, agents: map[model.Endpoint]probes.Agent{},
		made: map[string]types.UID{}, idle: map[string]model.Labels{}, unsupported: map[model.Endpoint]string{}, policies: map[policy.Ref]inForce{}, hosts: map[string]cluster.Host{},
		found: map[string]model.Labels{}, services: map[model.Endpoint]*corev1.Service{},
	}, nil
}

// scopes are where a run looks for what it made: everywhere, or in the namespaces that it was lent.
func scopes(lent []string) []string {
	if len(lent) == 0 {
		return []string{metav1.NamespaceAll}
	}
	return lent
}

// gather joins lists out of several namespaces, which are asked for side by side.
func gather[T any](namespaces []string, list func(namespace string) ([]T, error)) ([]T, error) {
	lists := make([][]T, len(namespaces))
	var calls []func() error
	for i, ns := range namespaces {
		calls = append(calls, func() (err error) {
			lists[i], err = list(ns)
			return err
		})
	}
	err := sideBySide(APIConcurrency, calls...)
	return slices.Concat(lists...), err
}

// ownLabels adds the run's labels, by which it is found what it made. They win over those of a file.
func (s *Stage) ownLabels(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, cluster.LaneLabels(s.lane.RunID, s.lane.Number))
	return out
}

// setUp makes everything a topology declares, and returns when the pods are ready.
func (s *Stage) setUp(ctx context.Context, t model.Topology) error {
	if err := s.createHosts(ctx, t.Hosts); err != nil {
		return err
	}
	if err := s.createNamespaces(ctx, t.Namespaces, t.Pods); err != nil {
		return err
	}
	s.declared.Nodes = s.cluster.Nodes()
	if err := s.createServices(ctx, t.Services); err != nil {
		return err
	}
	var missing []model.Pod
	for i, p := range t.Pods {
		p.Node = s.nodeOf(p, i)
		if have, stays := s.declared.Pod(p.Endpoint()); !stays {
			missing = append(missing, p)
		} else if !maps.Equal(have.Labels, p.Labels) {
			if err := s.LabelPod(ctx, p.Endpoint(), p.Labels); err != nil {
				return err
			}
		}
	}
	return s.CreatePods(ctx, missing)
}

// ErrCannotHost is matched by errors that say that this cluster can have no hosts outside of it.
var ErrCannotHost = errors.New("this cluster can have no hosts outside of it")

func (s *Stage) createHosts(ctx context.Context, list []model.Host) error {
	for _, h := range list {
		host, err := s.cluster.AddHost(ctx, h)
		if errors.Is(err, errors.ErrUnsupported) && len(h.Addresses) > 0 {
			// The verdicts about it are known all the same, and who reads them can tell which were not proven here.
			s.unsupported[h.Endpoint()] = "no host can have its address here: " + err.Error()
			s.declared.Hosts = append(s.declared.Hosts, h)
			continue
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%w, as %s would be: %w", ErrCannotHost, h.Endpoint(), err)
		}
		if err != nil {
			return fmt.Errorf("make host %s: %w", h.Name, err)
		}
		s.hosts[h.Name] = host
		h.Addresses = host.Addresses
		s.declared.Hosts = append(s.declared.Hosts, h)
		s.agents[h.Endpoint()] = host.Agent
	}
	return nil
}

// ReachNodes gets agents on nodes, as far as this cluster can have them and the run may be on their networks.
func (s *Stage) ReachNodes(ctx context.Context, nodes []model.Endpoint, allowed bool) error {
	for _, e := range nodes {
		index, ok := e.NodeIndex()
		if _, told := s.unsupported[e]; !ok || told || s.agents[e] != nil {
			continue
		}
		if len(s.lent) > 0 {
			s.unsupported[e] = "a run that was lent namespaces has no way to the network of a node"
			continue
		}
		if !allowed {
			// A scenario that names a node is refused before. This one is a stranger to a folder.
			s.unsupported[e] = "the run may not be on the network of a node; --allow host-network permits it"
			continue
		}
		agent, err := s.cluster.NodeAgent(ctx, index)
		if errors.Is(err, errors.ErrUnsupported) {
			s.unsupported[e] = err.Error()
			continue
		}
		if err != nil {
			return fmt.Errorf("reach node %d: %w", index, err)
		}
		s.agents[e] = agent
	}
	return nil
}

// deletion deletes the object that this run made and no other: after a lost Lease something of the same name may be
// another run's.
func deletion(uid types.UID) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
}

// isGone tells from the error of a [deletion] that there is nothing to delete: no object of the name, or another one.
func isGone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// Tampered compares the cluster with what the run made: the pods' identity and labels, the namespaces' labels, the
// services, and the policies in force. It returns a sentence about the first difference, or "".
func (s *Stage) Tampered(ctx context.Context) (string, error) {
	selector := metav1.ListOptions{LabelSelector: s.mine}
	pods, err := gather(scopes(s.lent), func(ns string) ([]corev1.Pod, error) {
		list, err := s.client.CoreV1().Pods(ns).List(ctx, selector)
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list pods: %w", err)
	}
	have := map[model.Endpoint]*corev1.Pod{}
	for i := range pods {
		p := &pods[i]
		have[s.names.endpoint(p.Namespace, p.Name)] = p
	}
	for _, want := range s.declared.Pods {
		e := want.Endpoint()
		p, was := have[e], s.running[e]
		switch {
		case p == nil || p.DeletionTimestamp != nil:
			return fmt.Sprintf("pod %s was deleted during the run", e), nil
		case p.UID != was.UID:
			return fmt.Sprintf("pod %s was replaced during the run (UID %s, now %s)", e, was.UID, p.UID), nil
		case p.Spec.NodeName != was.Spec.NodeName || !slices.Equal(podAddresses(p), podAddresses(was)):
			return fmt.Sprintf("pod %s moved during the run", e), nil
		case !isReady(p):
			return fmt.Sprintf("pod %s is not ready any more%s", e, podTrouble(p)), nil
		case want.Namespace != CanaryNamespace && !sameLabels(p.Labels, want.Labels): // the barrier moves those of the canaries
			return fmt.Sprintf("the labels of pod %s were changed behind the run's back", e), nil
		}
	}
	for _, e := range slices.Sorted(maps.Keys(have)) {
		if _, ours := s.declared.Pod(e); !ours {
			return fmt.Sprintf("pod %s appeared behind the run's back", e), nil
		}
	}
	namespaces, err := s.namespaces(ctx)
	if err != nil {
		return "", err
	}
	for _, want := range s.declared.Namespaces {
		i := slices.IndexFunc(namespaces, func(n corev1.Namespace) bool { return n.Name == s.names.real(want.Name) })
		if i < 0 || namespaces[i].DeletionTimestamp != nil {
			return fmt.Sprintf("namespace %s was deleted during the run", want.Name), nil
		}
		if have := s.labelsOf(want.Name, namespaces[i].Labels); want.Name != CanaryNamespace && !sameLabels(have, want.Labels) {
			return fmt.Sprintf("the labels of namespace %s were changed behind the run's back", want.Name), nil
		}
	}
	if difference, err := s.servicesTampered(ctx); err != nil || difference != "" {
		return difference, err
	}
	if difference, err := s.policiesTampered(ctx); err != nil || difference != "" {
		return difference, err
	}
	return s.Joined(ctx)
}

// Restore undoes the rest of a scenario's steps: labels back, created pods away, removed pods back. initial is the
// topology as it ran before the first step.
func (s *Stage) Restore(ctx context.Context, initial model.Topology) error {
	var errs []error
	var extra []model.Endpoint
	for _, p := range s.declared.Pods {
		want, ok := initial.Pod(p.Endpoint())
		switch {
		case p.Namespace == CanaryNamespace:
		case !ok || p.Node != want.Node || p.HostNetwork != want.HostNetwork || !slices.Equal(p.Ports, want.Ports):
			extra = append(extra, p.Endpoint()) // another pod, or another one of the same name
		case !maps.Equal(p.Labels, want.Labels):
			errs = append(errs, s.LabelPod(ctx, p.Endpoint(), want.Labels))
		}
	}
	for _, ns := range initial.Namespaces {
		have, ok := s.declared.Namespace(ns.Name)
		if ok && !sameLabels(have.Labels, ns.Labels) {
			errs = append(errs, s.LabelNamespace(ctx, ns.Name, ns.Labels))
		}
	}
	// What a step left half-made is not declared.
	for _, e := range s.watch.known() {
		_, declared := s.declared.Pod(e)
		if ns, _, _ := e.Split(); !declared && ns != CanaryNamespace {
			extra = append(extra, e)
		}
	}
	if len(extra) > 0 {
		errs = append(errs, s.RemovePods(ctx, extra))
	}
	var missing []model.Pod
	for _, p := range initial.Pods {
		if _, ok := s.declared.Pod(p.Endpoint()); !ok {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		errs = append(errs, s.CreatePods(ctx, missing))
	}
	return errors.Join(errs...)
}

// Clear removes everything but the canaries, and returns when it is gone. Namespaces go too: what somebody else did to
// them, or put into them, must not reach the next scenario.
func (s *Stage) Clear(ctx context.Context) error {
	if err := s.Become(ctx, model.Topology{}); err != nil {
		return err
	}
	var calls []func() error
	for ns, uid := range s.made {
		if ns != CanaryNamespace {
			calls = append(calls, func() error { return s.deleteNamespace(ctx, s.names.real(ns), uid) })
		}
	}
	if err := sideBySide(APIConcurrency, calls...); err != nil {
		return err
	}
	maps.DeleteFunc(s.made, func(ns string, _ types.UID) bool { return ns != CanaryNamespace })
	clear(s.idle)
	return nil
}

// Leave ends the watch of pods, and leaves all else to the end of the cluster.
func (s *Stage) Leave() { s.watch.stop() }

// RunningPods are the pods as the API server last had them, canaries included, in a map of their own.
func (s *Stage) RunningPods() map[model.Endpoint]*corev1.Pod { return maps.Clone(s.running) }

// Has tells whether there is an agent of the endpoint.
func (s *Stage) Has(e model.Endpoint) bool { return s.agents[e] != nil }

// DeclaredPods are the pods that there should be, canaries included.
func (s *Stage) DeclaredPods() (out []model.Endpoint) {
	for _, p := range s.declared.Pods {
		out = append(out, p.Endpoint())
	}
	return out
}

// Close removes everything.
func (s *Stage) Close(ctx context.Context) error {
	defer s.watch.stop()
	// What holds one of them up must not hold up the rest.
	errs := []error{s.unapplyAll(ctx)}
	errs = append(errs, s.RemovePods(ctx, s.pods()))
	errs = append(errs, s.giveBack(ctx))
	for _, svc := range s.declared.Services {
		if s.made[svc.Namespace] == "" {
			errs = append(errs, s.deleteService(ctx, svc))
		}
	}
	if len(s.lent) > 0 {
		errs = append(errs, s.removeCanaryPolicies(ctx))
	}
	errs = append(errs, s.removeHosts(ctx))
	var calls []func() error
	for ns, uid := range s.made {
		calls = append(calls, func() error { return s.deleteNamespace(ctx, s.names.real(ns), uid) })
	}
	return errors.Join(append(errs, sideBySide(APIConcurrency, calls...), s.awaitEnds(ctx))...)
}

// removeCanaryPolicies removes them where they do not go with their namespace.
func (s *Stage) removeCanaryPolicies(ctx context.Context) error {
	policies := s.client.NetworkingV1().NetworkPolicies(s.names.real(CanaryNamespace))
	list, err := policies.List(ctx, metav1.ListOptions{LabelSelector: s.mine})
	if err != nil {
		return fmt.Errorf("list the policies of the canaries: %w", err)
	}
	var errs []error
	for _, p := range list.Items {
		if err := policies.Delete(ctx, p.Name, deletion(p.UID)); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("delete a policy of the canaries: %w", err))
		}
	}
	return errors.Join(errs...)
}

// agent returns the agent of an endpoint of the stage.
func (s *Stage) agent(_ context.Context, e model.Endpoint) (probes.Agent, error) {
	if a, ok := s.agents[e]; ok {
		return a, nil
	}
	return nil, fmt.Errorf("no agent for %s", e)
}

// Topology is the declared topology with live addresses, without the canaries.
func (s *Stage) Topology() model.Topology {
	t := s.declared
	t.Pods = slices.DeleteFunc(slices.Clone(t.Pods), func(p model.Pod) bool { return p.Namespace == CanaryNamespace })
	t.Namespaces = slices.DeleteFunc(slices.Clone(t.Namespaces), func(n model.Namespace) bool { return n.Name == CanaryNamespace })
	return t
}
