package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// apiConcurrency bounds the calls to the API server that are under way at once.
const apiConcurrency = 16

// objectKey names an object that a step applied.
type objectKey struct {
	kind            schema.GroupVersionKind
	namespace, name string
}

func (k objectKey) String() string {
	if k.namespace == "" {
		return k.kind.Kind + "/" + k.name
	}
	return k.kind.Kind + "/" + k.namespace + "/" + k.name
}

// inForce is an applied object as the API server took it.
type inForce struct {
	uid        types.UID
	generation int64
}

// stage is what a scenario is played on: namespaces, pods and services that run, and the policies in force. It knows what the
// run made, so that it can show that nothing else changed, and undo it.
type stage struct {
	cluster  cluster.Cluster
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	mapper   meta.ResettableRESTMapper
	watch    *podWatch
	families []model.IPFamily
	runID    string
	names    names

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
	policies    map[objectKey]inForce
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

func newStage(ctx context.Context, c cluster.Cluster, runID string, opts Options) (*stage, error) {
	cfg := c.RESTConfig()
	cfg.QPS = -1 // the bound is apiConcurrency
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	names := names{opts.NamespacePrefix}
	var lent []string
	if len(opts.Namespaces) > 0 {
		lent = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(opts.Namespaces), names.real(canaryNamespace)))))
	}
	watch, err := watchPods(ctx, client, scopes(lent), cluster.RunLabel+"="+runID, names)
	if err != nil {
		return nil, err
	}
	return &stage{
		cluster: c, client: client, dynamic: dyn, watch: watch, shared: !opts.Disposable, lent: lent, families: c.Info().IPFamilies, runID: runID, names: names,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		running: map[model.Endpoint]*corev1.Pod{}, agents: map[model.Endpoint]probes.Agent{},
		made: map[string]types.UID{}, idle: map[string]model.Labels{}, unsupported: map[model.Endpoint]string{}, policies: map[objectKey]inForce{}, hosts: map[string]cluster.Host{},
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
	err := sideBySide(apiConcurrency, calls...)
	return slices.Concat(lists...), err
}

// ownLabels adds the run's labels, by which it is found what it made. They win over those of a file.
func (s *stage) ownLabels(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, cluster.RunLabels(s.runID))
	return out
}

// setUp makes everything a topology declares, and returns when the pods are ready.
func (s *stage) setUp(ctx context.Context, t model.Topology) error {
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
			if err := s.labelPod(ctx, p.Endpoint(), p.Labels); err != nil {
				return err
			}
		}
	}
	return s.createPods(ctx, missing)
}

// errCannotHost is matched by errors that say that this cluster can have no hosts outside of it.
var errCannotHost = errors.New("this cluster can have no hosts outside of it")

func (s *stage) createHosts(ctx context.Context, list []model.Host) error {
	for _, h := range list {
		host, err := s.cluster.AddHost(ctx, h.Name, h.Ports)
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%w, as %s would be: %w", errCannotHost, h.Endpoint(), err)
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

// reachNodes gets agents on nodes, as far as this cluster can have them.
func (s *stage) reachNodes(ctx context.Context, nodes []model.Endpoint) error {
	for _, e := range nodes {
		index, ok := e.NodeIndex()
		if _, told := s.unsupported[e]; !ok || told || s.agents[e] != nil {
			continue
		}
		if len(s.lent) > 0 {
			s.unsupported[e] = "a run that was lent namespaces has no way to the network of a node"
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

func (s *stage) createNamespaces(ctx context.Context, list []model.Namespace, pods []model.Pod) error {
	var calls []func() error
	for _, ns := range list {
		calls = append(calls, func() error {
			level := s.cluster.NamespaceLabels(slices.DeleteFunc(slices.Clone(pods), func(p model.Pod) bool { return p.Namespace != ns.Name }))
			if err := notPodSecurity(ns.Name, ns.Labels, nil); err != nil {
				return err
			}
			if s.made[ns.Name] != "" {
				return s.wakeNamespace(ctx, ns, level)
			}
			if len(s.lent) > 0 {
				return s.borrowNamespace(ctx, ns)
			}
			labels := s.ownLabels(ns.Labels)
			maps.Copy(labels, level)
			delete(labels, corev1.LabelMetadataName) // the API server sets it
			obj := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.names.real(ns.Name), Labels: labels}}
			got, err := s.client.CoreV1().Namespaces().Create(ctx, obj, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) && isBuiltIn(ns.Name) {
				// Pods may be put beside what the cluster brings; the namespace itself stays as it is.
				got, err = s.client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
				if err != nil {
					return fmt.Errorf("read namespace %s: %w", ns.Name, err)
				}
				if got, err = s.asBeforeTheCrash(ctx, got); err != nil {
					return err
				}
				s.keepNamespace(got, false)
				return s.labelNamespace(ctx, ns.Name, ns.Labels)
			}
			if apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("namespace %s is there already, and is not this run's: choose another name or a --namespace-prefix, or have it lent (--namespaces)", obj.Name)
			}
			if err != nil {
				return fmt.Errorf("create namespace %s: %w", obj.Name, err)
			}
			s.keepNamespace(got, true)
			return nil
		})
	}
	return sideBySide(apiConcurrency, calls...)
}

// borrowNamespace takes a namespace that was lent, with the labels that it has.
func (s *stage) borrowNamespace(ctx context.Context, ns model.Namespace) error {
	got, err := s.client.CoreV1().Namespaces().Get(ctx, s.names.real(ns.Name), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read namespace %s: %w", ns.Name, err)
	}
	if why := s.notLent(got, ns); why != "" {
		return errors.New(why)
	}
	s.keepNamespace(got, false)
	return nil
}

// notLent says why a namespace of the cluster cannot be a scenario's, or "". The run may not change it, so it must have the labels.
func (s *stage) notLent(have *corev1.Namespace, want model.Namespace) string {
	if !slices.Contains(s.lent, have.Name) {
		return fmt.Sprintf("namespace %s is not among those of --namespaces", have.Name)
	}
	if have.Labels[cluster.LentLabel] != cluster.Lent {
		return fmt.Sprintf("namespace %s is not lent to runs: if nobody else needs what is in it, kubectl label namespace %s %s=%s says so",
			have.Name, have.Name, cluster.LentLabel, cluster.Lent)
	}
	for _, k := range slices.Sorted(maps.Keys(want.Labels)) {
		if v, ok := have.Labels[k]; k != corev1.LabelMetadataName && (!ok || v != want.Labels[k]) {
			return fmt.Sprintf("namespace %s needs the label %s=%s, and a run must not label what it was lent: kubectl label namespace %s %s=%s",
				have.Name, k, want.Labels[k], have.Name, k, want.Labels[k])
		}
	}
	return ""
}

// isBuiltIn tells whether every cluster has this namespace.
func isBuiltIn(ns string) bool {
	return ns == metav1.NamespaceDefault || ns == metav1.NamespaceSystem
}

func (s *stage) keepNamespace(ns *corev1.Namespace, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.names.scenario(ns.Name)
	if made {
		s.made[name] = ns.UID
	} else {
		s.found[name] = s.names.allLabels(ns.Labels)
	}
	s.declared.Namespaces = append(s.declared.Namespaces, model.Namespace{Name: name, Labels: s.labelsOf(name, ns.Labels)})
}

// labelsOf are the labels of a namespace that count: all where the run found it, and of one that the run made those of the scenario.
func (s *stage) labelsOf(name string, have map[string]string) model.Labels {
	if _, found := s.found[name]; found {
		return s.names.allLabels(have)
	}
	return s.names.labels(have)
}

func (s *stage) createServices(ctx context.Context, list []model.Service) error {
	var calls []func() error
	for _, svc := range list {
		calls = append(calls, func() error {
			var got *corev1.Service
			ns := s.names.real(svc.Namespace)
			if err := inNamespace(ctx, s.client, ns, func() (err error) {
				got, err = s.client.CoreV1().Services(ns).Create(ctx, s.serviceObject(svc), metav1.CreateOptions{})
				return err
			}); err != nil {
				return fmt.Errorf("create service %s: %w", svc.Endpoint(), err)
			}
			for _, ip := range got.Spec.ClusterIPs {
				if a, err := netip.ParseAddr(ip); err == nil {
					svc.Addresses = append(svc.Addresses, a)
				}
			}
			s.cluster.Admit(svc.Addresses...)
			svc.Ports = slices.Clone(svc.Ports)
			for i, p := range got.Spec.Ports {
				svc.Ports[i].NodePort = int(p.NodePort)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.services[svc.Endpoint()] = got
			s.declared.Services = append(s.declared.Services, svc)
			return nil
		})
	}
	return sideBySide(apiConcurrency, calls...)
}

// awaitBackends returns when the endpoints of every service are the pods that it selects. Until then a connection through it fails
// without any policy.
func (s *stage) awaitBackends(ctx context.Context, limit time.Duration) error {
	if len(s.declared.Services) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for first := true; ; first = false {
		late, err := s.lateService(ctx)
		if err != nil || late == "" {
			return err
		}
		if first { // it is worth no wait where others are behind it
			if why, err := s.joined(ctx); err != nil {
				return err
			} else if why != "" {
				return errors.New(why)
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the endpoints of service %s are still not its pods: %w", late, context.Cause(ctx))
		}
	}
}

// lateService finds a service whose endpoints are not the pods that it selects.
func (s *stage) lateService(ctx context.Context) (model.Endpoint, error) {
	have := map[model.Endpoint][]netip.Addr{}
	listed := map[string]bool{}
	for _, svc := range s.declared.Services {
		if listed[svc.Namespace] {
			continue
		}
		listed[svc.Namespace] = true
		found, err := s.client.DiscoveryV1().EndpointSlices(s.names.real(svc.Namespace)).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("list the endpoints of services: %w", err)
		}
		for _, slice := range found.Items {
			e := s.names.endpoint(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
			for _, end := range slice.Endpoints {
				for _, text := range end.Addresses {
					if a, err := netip.ParseAddr(text); err == nil {
						have[e] = append(have[e], a)
					}
				}
			}
		}
	}
	for _, svc := range s.declared.Services {
		var want []netip.Addr
		for _, p := range s.declared.Pods {
			if p.Namespace == svc.Namespace && selects(svc.Selector, p.Labels) {
				want = append(want, p.Addresses...)
			}
		}
		if len(svc.Selector) > 0 && !sameAddresses(have[svc.Endpoint()], want) {
			return svc.Endpoint(), nil
		}
	}
	return "", nil
}

// sameAddresses tells whether two lists hold the same addresses, in any order and number.
func sameAddresses(a, b []netip.Addr) bool {
	sorted := func(list []netip.Addr) []netip.Addr {
		list = slices.Clone(list)
		slices.SortFunc(list, netip.Addr.Compare)
		return slices.Compact(list)
	}
	return slices.Equal(sorted(a), sorted(b))
}

func (s *stage) serviceObject(svc model.Service) *corev1.Service {
	obj := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.names.real(svc.Namespace), Name: svc.Name, Labels: s.ownLabels(nil)},
		Spec:       corev1.ServiceSpec{Selector: svc.Selector, Type: corev1.ServiceType(svc.Type)},
	}
	policy := corev1.IPFamilyPolicySingleStack
	if len(s.families) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	obj.Spec.IPFamilyPolicy = &policy
	for _, f := range s.families { // of a cluster of both families a run may want one
		obj.Spec.IPFamilies = append(obj.Spec.IPFamilies, corev1.IPFamily(f))
	}
	for _, p := range svc.Ports {
		port := corev1.ServicePort{Name: p.Port.Name, Port: int32(p.Port.Number), Protocol: corev1.Protocol(p.Port.Protocol)}
		if port.Name == "" {
			port.Name = strings.ToLower(fmt.Sprintf("%s-%d", p.Port.Protocol, p.Port.Number))
		}
		if p.Target != "" {
			port.TargetPort = intstr.Parse(p.Target)
		}
		obj.Spec.Ports = append(obj.Spec.Ports, port)
	}
	return obj
}

// podObject is a probe pod. On the local cluster the node agent serves the declared ports; elsewhere the agent in the image does.
func (s *stage) podObject(p model.Pod, index int) *corev1.Pod {
	no, zero := false, int64(0)
	obj := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.names.real(p.Namespace), Name: p.Name, Labels: s.ownLabels(p.Labels),
			Annotations: map[string]string{cluster.EndpointAnnotation: string(p.Endpoint())},
		},
		Spec: corev1.PodSpec{
			NodeName:                      s.cluster.Nodes()[s.nodeOf(p, index)].Name,
			HostNetwork:                   p.HostNetwork,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			TerminationGracePeriodSeconds: &zero,
			Containers:                    []corev1.Container{{Name: "probe", Image: "netproof.dev/agent"}},
		},
	}
	for _, port := range p.Ports {
		cp := corev1.ContainerPort{Name: port.Name, ContainerPort: int32(port.Number), Protocol: corev1.Protocol(port.Protocol)}
		if p.HostNetwork {
			cp.HostPort = cp.ContainerPort
		}
		obj.Spec.Containers[0].Ports = append(obj.Spec.Containers[0].Ports, cp)
	}
	s.cluster.PreparePod(obj)
	return obj
}

// podsPerNode is how many pods a node is given to start at once. A node of one processor takes about a second for each, and one that is given
// a hundred fails to start some in time.
const podsPerNode = 8

// createPods makes pods and returns when they are ready and their agents reachable.
func (s *stage) createPods(ctx context.Context, list []model.Pod) error {
	nodes := map[string]int{}
	for _, n := range s.cluster.Nodes() {
		nodes[n.Name] = n.Index
	}
	agents, running := make([]probes.Agent, len(list)), make([]*corev1.Pod, len(list))
	var calls []func() error
	for i, p := range list {
		e := p.Endpoint()
		calls = append(calls, func() error {
			ns := s.names.real(p.Namespace)
			if err := inNamespace(ctx, s.client, ns, func() error {
				_, err := s.client.CoreV1().Pods(ns).Create(ctx, s.podObject(p, i), metav1.CreateOptions{})
				return err
			}); err != nil {
				return fmt.Errorf("create pod %s: %w", e, err)
			}
			ready, err := s.watch.ready(ctx, []model.Endpoint{e}, s.families)
			if err != nil {
				return err
			}
			running[i] = ready[e]
			if agents[i], err = s.cluster.PodAgent(ctx, ready[e]); err != nil {
				return fmt.Errorf("reach pod %s: %w", e, err)
			}
			return nil
		})
	}
	if err := sideBySide(max(apiConcurrency, podsPerNode*len(nodes)), calls...); err != nil {
		return err
	}
	for i, p := range list {
		e, pod := p.Endpoint(), running[i]
		p.Addresses = podAddresses(pod)
		p.Node = nodes[pod.Spec.NodeName]
		s.running[e], s.agents[e] = pod, agents[i]
		s.declared.Pods = append(s.declared.Pods, p)
	}
	return nil
}

// deletion deletes the object that this run made and no other: after a lost Lease something of the same name may be another run's.
func deletion(uid types.UID) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
}

// isGone tells from the error of a [deletion] that there is nothing to delete: no object of the name, or another one.
func isGone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// removePods deletes pods and returns when they are gone.
func (s *stage) removePods(ctx context.Context, list []model.Endpoint) error {
	var calls []func() error
	for _, e := range list {
		calls = append(calls, func() error {
			ns, name := s.names.split(e)
			pod := s.watch.get(e)
			if pod == nil {
				pod = s.running[e] // the watch is late, or somebody has deleted it
			}
			if pod == nil {
				return nil
			}
			options := deletion(pod.UID)
			zero := int64(0)
			options.GracePeriodSeconds = &zero
			err := s.client.CoreV1().Pods(ns).Delete(ctx, name, options)
			if err != nil && !isGone(err) {
				return fmt.Errorf("delete pod %s: %w", e, err)
			}
			return nil
		})
	}
	if err := sideBySide(apiConcurrency, calls...); err != nil {
		return err
	}
	for _, e := range list {
		delete(s.running, e)
		delete(s.agents, e)
	}
	s.declared.Pods = slices.DeleteFunc(s.declared.Pods, func(p model.Pod) bool { return slices.Contains(list, p.Endpoint()) })
	return s.watch.gone(ctx, list)
}

// labelPatch is a merge patch that turns one set of labels into another, and sets annotations. It speaks of no label that both have, nor of
// the run's own.
func labelPatch(from, to model.Labels, annotations map[string]any) []byte {
	labels := map[string]any{}
	for k, v := range changes(to, from) {
		if !cluster.IsRunLabel(k) {
			labels[k] = v
		}
	}
	metadata := map[string]any{"labels": labels}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	body, _ := json.Marshal(map[string]any{"metadata": metadata}) // strings and nulls cannot fail
	return body
}

// relabel turns the labels of a namespace into others. One that the run did not make is given an annotation, as long as its labels are not
// what they were, that tells how to restore them: a run that crashes cannot.
func (s *stage) relabel(ctx context.Context, name string, from, to model.Labels) error {
	var annotations map[string]any
	if found, builtIn := s.found[name]; builtIn {
		annotations = map[string]any{cluster.RestoreAnnotation: cluster.Restore{Run: s.runID, Labels: changes(found, to), Before: found}.Annotation()}
	}
	return s.patchNamespace(ctx, name, labelPatch(from, to, annotations))
}

// changes are the labels that differ, with the values that they had before; nil for one that was not there.
func changes(before, now map[string]string) map[string]*string {
	out := map[string]*string{}
	for k := range now {
		if _, was := before[k]; !was {
			out[k] = nil
		}
	}
	for k, v := range before {
		if n, is := now[k]; k != corev1.LabelMetadataName && (!is || n != v) { // that one is the API server's
			out[k] = &v
		}
	}
	return out
}

// asBeforeTheCrash gives a built-in namespace the labels back that a run has changed which can do it no more.
func (s *stage) asBeforeTheCrash(ctx context.Context, ns *corev1.Namespace) (*corev1.Namespace, error) {
	before, changed, err := cluster.ReadRestore(ns.Annotations)
	if err != nil {
		return nil, fmt.Errorf("namespace %s was labelled by an earlier run: %w: correct its labels and remove the annotation", ns.Name, err)
	}
	if !changed {
		return ns, nil
	}
	ns, err = s.client.CoreV1().Namespaces().Patch(ctx, ns.Name, types.MergePatchType, before.Patch(), metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("restore the labels of a namespace after run %s: %w", before.Run, err)
	}
	return ns, nil
}

// giveBack gives the namespaces that the run found the labels back that they had, and shows that they have them.
func (s *stage) giveBack(ctx context.Context) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.found)) {
		if err := s.giveBackLabels(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.found, name)
	}
	return errors.Join(errs...)
}

// giveBackLabels looks at the namespace itself: what the run knows of it may be late, after a call whose answer did not come.
func (s *stage) giveBackLabels(ctx context.Context, name string) error {
	namespaces := s.client.CoreV1().Namespaces()
	ns, err := namespaces.Get(ctx, s.names.real(name), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	before, changed, err := cluster.ReadRestore(ns.Annotations)
	if err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	if !changed || before.Run != s.runID {
		return nil
	}
	if ns, err = namespaces.Patch(ctx, ns.Name, types.MergePatchType, before.Patch(), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("restore the labels of namespace %s: %w", name, err)
	}
	before.Before = s.found[name] // nobody else could write into that
	if differ := before.Differences(s.names.allLabels(ns.Labels)); len(differ) > 0 {
		delete(s.found, name)
		return fmt.Errorf("the labels of namespace %s are not as they were, since somebody else has changed them: %s", name, strings.Join(differ, "; "))
	}
	return nil
}

func (s *stage) patchNamespace(ctx context.Context, name string, patch []byte) error {
	if _, err := s.client.CoreV1().Namespaces().Patch(ctx, s.names.real(name), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label namespace %s: %w", name, err)
	}
	return nil
}

// labelPod replaces a pod's labels.
func (s *stage) labelPod(ctx context.Context, e model.Endpoint, to model.Labels) error {
	p, ok := s.declared.Pod(e)
	if !ok {
		return fmt.Errorf("label pod %s: it does not exist", e)
	}
	_, err := s.client.CoreV1().Pods(s.names.real(p.Namespace)).Patch(ctx, p.Name, types.MergePatchType, labelPatch(p.Labels, to, nil), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("label pod %s: %w", e, err)
	}
	p.Labels = maps.Clone(to)
	return nil
}

// labelNamespace replaces the labels that the scenario gave a namespace. Those that it had before the run stay.
func (s *stage) labelNamespace(ctx context.Context, name string, to model.Labels) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns, ok := s.declared.Namespace(name)
	if !ok {
		return fmt.Errorf("label namespace %s: it does not exist", name)
	}
	if err := notPodSecurity(name, to, s.found[name]); err != nil {
		return err
	}
	to = maps.Clone(to)
	if to == nil {
		to = model.Labels{}
	}
	for k, v := range s.found[name] {
		if _, given := to[k]; !given {
			to[k] = v
		}
	}
	to[corev1.LabelMetadataName] = name
	if maps.Equal(ns.Labels, to) {
		return nil
	}
	if len(s.lent) > 0 {
		return fmt.Errorf("label namespace %s: a run must not label what it was lent", name)
	}
	// The label with the name is the API server's.
	from, into := maps.Clone(ns.Labels), maps.Clone(to)
	delete(from, corev1.LabelMetadataName)
	delete(into, corev1.LabelMetadataName)
	if err := s.relabel(ctx, name, from, into); err != nil {
		return err
	}
	ns.Labels = to
	return nil
}

// errUnknownKind is matched by the error for an object of a kind that the API server does not serve.
var errUnknownKind = errors.New("this cluster does not know the kind")

// resource finds how the API server serves a kind.
func (s *stage) resource(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	var gvr schema.GroupVersionResource
	namespaced := true
	if gvk.Group == "networking.k8s.io" && gvk.Kind == "NetworkPolicy" {
		gvr = gvk.GroupVersion().WithResource("networkpolicies") // saves the discovery of everything else
	} else {
		m, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if meta.IsNoMatchError(err) {
			return nil, fmt.Errorf("%w %s of %s", errUnknownKind, gvk.Kind, gvk.GroupVersion())
		}
		if err != nil {
			return nil, fmt.Errorf("look up kind %s: %w", gvk.Kind, err)
		}
		gvr, namespaced = m.Resource, m.Scope.Name() == meta.RESTScopeNameNamespace
	}
	if namespaced {
		return s.dynamic.Resource(gvr).Namespace(s.names.real(namespace)), nil
	}
	return s.dynamic.Resource(gvr), nil
}

// resourceName is what kubectl calls a kind.
func resourceName(kind schema.GroupVersionKind) string {
	return strings.TrimSuffix(strings.ToLower(kind.Kind)+"."+kind.Group, ".")
}

func keyOf(obj *unstructured.Unstructured) objectKey {
	return objectKey{kind: obj.GroupVersionKind(), namespace: obj.GetNamespace(), name: obj.GetName()}
}

// apply creates or updates an object.
func (s *stage) apply(ctx context.Context, obj *unstructured.Unstructured) error {
	key := keyOf(obj)
	obj, err := s.names.object(obj)
	if err != nil {
		return err
	}
	if err := fit(obj); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	obj.SetLabels(s.ownLabels(obj.GetLabels()))
	res, err := s.resource(key.kind, key.namespace)
	if err != nil {
		return err
	}
	var got *unstructured.Unstructured
	if err := inNamespace(ctx, s.client, obj.GetNamespace(), func() (err error) {
		got, err = res.Apply(ctx, key.name, obj, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	}); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	s.policies[key] = inForce{uid: got.GetUID(), generation: got.GetGeneration()}
	return nil
}

// fit refuses what would let an object outlive the run, or end with something else.
func fit(obj *unstructured.Unstructured) error {
	if len(obj.GetFinalizers())+len(obj.GetOwnerReferences()) > 0 {
		return &refusedError{err: errors.New("it has finalizers or ownerReferences, so a run could not undo it"), mend: "remove them"}
	}
	return nil
}

// refusedError says that the API server will not take an object, and what can be done about it.
type refusedError struct {
	err  error
	mend string
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// dryRun asks the API server whether it would take an object. The object's namespace need not exist yet. Its error is a
// [refusedError] if the server would not; any other error means that it could not be asked.
func (s *stage) dryRun(ctx context.Context, obj *unstructured.Unstructured) error {
	key := keyOf(obj)
	if err := fit(obj); err != nil {
		return err
	}
	obj, err := s.names.object(obj)
	if err != nil {
		return &refusedError{err: err, mend: "change the selector, or run without --namespace-prefix"}
	}
	if key.namespace != "" && !isBuiltIn(key.namespace) && len(s.lent) == 0 {
		obj.SetNamespace(metav1.NamespaceDefault)
	}
	res, err := s.resource(key.kind, obj.GetNamespace())
	if errors.Is(err, errUnknownKind) {
		return &refusedError{err: err, mend: "leave it out, or run on a cluster whose network plugin has this kind"}
	}
	if err != nil {
		return err
	}
	_, err = res.Create(ctx, obj, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err) && obj.GetNamespace() != s.names.real(key.namespace):
		return nil // in another namespace, after it was validated
	case apierrors.IsAlreadyExists(err):
		return &refusedError{
			err:  errors.New("the cluster has one of this name already, which a run must not touch"),
			mend: "give it another name; if a run that crashed left it behind, netproof cleanup removes it",
		}
	case errors.As(err, &status) && refuses(status.Status().Code):
		return &refusedError{err: err, mend: "correct what the message names; kubectl apply --dry-run=server says the same"}
	}
	return err
}

// refuses tells whether a status code of the API server speaks about the object that it was sent, and not about the server.
func refuses(code int32) bool {
	switch code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// delete removes an object that the scenario applied.
func (s *stage) delete(ctx context.Context, key objectKey) error {
	if err := s.unapply(ctx, key); err != nil {
		return err
	}
	delete(s.policies, key)
	return nil
}

// unapply removes an object from the API server only.
func (s *stage) unapply(ctx context.Context, key objectKey) error {
	res, err := s.resource(key.kind, key.namespace)
	if err != nil {
		return err
	}
	if err := res.Delete(ctx, key.name, deletion(s.policies[key].uid)); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// tampered compares the cluster with what the run made: the pods' identity and labels, the namespaces' labels, the services, and
// the policies in force. It returns a sentence about the first difference, or "".
func (s *stage) tampered(ctx context.Context) (string, error) {
	selector := metav1.ListOptions{LabelSelector: cluster.RunLabel + "=" + s.runID}
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
		case want.Namespace != canaryNamespace && !sameLabels(p.Labels, want.Labels): // the barrier moves those of the canaries
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
		if have := s.labelsOf(want.Name, namespaces[i].Labels); want.Name != canaryNamespace && !sameLabels(have, want.Labels) {
			return fmt.Sprintf("the labels of namespace %s were changed behind the run's back", want.Name), nil
		}
	}
	if difference, err := s.servicesTampered(ctx); err != nil || difference != "" {
		return difference, err
	}
	if difference, err := s.policiesTampered(ctx); err != nil || difference != "" {
		return difference, err
	}
	return s.joined(ctx)
}

// namespaces are those of the cluster, or those that the run was lent.
func (s *stage) namespaces(ctx context.Context) ([]corev1.Namespace, error) {
	namespaces := s.client.CoreV1().Namespaces()
	if len(s.lent) == 0 {
		list, err := namespaces.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		return list.Items, nil
	}
	return gather(s.lent, func(name string) ([]corev1.Namespace, error) {
		ns, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read namespace %s: %w", name, err)
		}
		return []corev1.Namespace{*ns}, nil
	})
}

func (s *stage) servicesTampered(ctx context.Context) (string, error) {
	if len(s.services) == 0 {
		return "", nil
	}
	listed, err := gather(scopes(s.lent), func(ns string) ([]corev1.Service, error) {
		list, err := s.client.CoreV1().Services(ns).List(ctx, metav1.ListOptions{LabelSelector: cluster.RunLabel + "=" + s.runID})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list services: %w", err)
	}
	have := map[types.UID]*corev1.Service{}
	for i := range listed {
		have[listed[i].UID] = &listed[i]
	}
	for _, e := range slices.Sorted(maps.Keys(s.services)) {
		want := s.services[e]
		switch got := have[want.UID]; {
		case got == nil:
			return fmt.Sprintf("service %s was deleted during the run", e), nil
		case !equality.Semantic.DeepEqual(got.Spec, want.Spec):
			return fmt.Sprintf("service %s was changed behind the run's back", e), nil
		}
	}
	return "", nil
}

func sameLabels(have map[string]string, want model.Labels) bool {
	have = maps.Clone(have)
	maps.DeleteFunc(have, func(k, _ string) bool { return cluster.IsRunLabel(k) || k == corev1.LabelMetadataName })
	want = maps.Clone(want)
	delete(want, corev1.LabelMetadataName)
	return maps.Equal(have, want)
}

func (s *stage) policiesTampered(ctx context.Context) (string, error) {
	listed, err := gather(scopes(s.lent), func(ns string) ([]networkingv1.NetworkPolicy, error) {
		list, err := s.client.NetworkingV1().NetworkPolicies(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return "", fmt.Errorf("list policies: %w", err)
	}
	have := map[types.UID]int64{}
	for _, p := range listed {
		have[p.UID] = p.Generation
	}
	ours := map[types.UID]bool{}
	for _, key := range s.keys() {
		want := s.policies[key]
		ours[want.uid] = true
		generation, there := have[want.uid]
		if key.kind.Group != "networking.k8s.io" {
			res, err := s.resource(key.kind, key.namespace)
			if err != nil {
				return "", err
			}
			got, err := res.Get(ctx, key.name, metav1.GetOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return "", fmt.Errorf("read %s: %w", key, err)
			}
			if there = err == nil && got.GetUID() == want.uid; there {
				generation = got.GetGeneration()
			}
		}
		if !there {
			return fmt.Sprintf("%s was removed behind the run's back", key), nil
		}
		if generation != want.generation {
			return fmt.Sprintf("%s was changed behind the run's back", key), nil
		}
	}
	for i := range listed {
		p := &listed[i]
		ns := s.names.scenario(p.Namespace)
		if ns == canaryNamespace && p.Labels[cluster.RunLabel] == s.runID {
			continue
		}
		if _, mine := s.declared.Namespace(ns); !mine || s.names.real(ns) != p.Namespace || ours[p.UID] {
			continue
		}
		if s.made[ns] != "" {
			return fmt.Sprintf("NetworkPolicy/%s/%s appeared behind the run's back", p.Namespace, p.Name), nil
		}
		// Whoever has the namespace may have policies in it.
		if pod := s.selectedBy(networkPolicySubject(p)); pod != "" {
			return fmt.Sprintf("NetworkPolicy/%s/%s, which is not of this run, selects pod %s", p.Namespace, p.Name, pod), nil
		}
	}
	return s.rivals(ctx)
}

// keys returns the applied objects in a fixed order.
func (s *stage) keys() []objectKey {
	keys := slices.Collect(maps.Keys(s.policies))
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	return keys
}

// deletePolicies removes every object that the steps applied, and returns when they are gone.
func (s *stage) deletePolicies(ctx context.Context) error {
	return errors.Join(s.unapplyAll(ctx), s.awaitEnds(ctx))
}

func (s *stage) unapplyAll(ctx context.Context) error {
	var errs []error
	for _, key := range s.keys() {
		if err := s.unapply(ctx, key); err != nil && !isGone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// awaitEnds returns when all deleted objects are gone. Those that stay are not forgotten: they may be in force.
func (s *stage) awaitEnds(ctx context.Context) error {
	var errs []error
	for _, key := range s.keys() {
		if err := s.awaitEnd(ctx, key); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.policies, key)
	}
	return errors.Join(errs...)
}

// awaitEnd returns when a deleted object is gone, which takes no time unless it has finalizers.
func (s *stage) awaitEnd(ctx context.Context, key objectKey) error {
	res, err := s.resource(key.kind, key.namespace)
	if err != nil {
		return err
	}
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		got, err := res.Get(ctx, key.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && got.GetDeletionTimestamp() == nil {
			return nil // gone, or another one
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			why := ""
			if held := cluster.Held(resourceName(key.kind), s.names.real(key.namespace), key.name, got.GetFinalizers()); held != "" {
				why = ", " + held
			}
			return fmt.Errorf("%s is still there%s: %w", key, why, context.Cause(ctx))
		}
	}
}

// restore undoes the rest of a scenario's steps: labels back, created pods away, removed pods back. initial is the topology as it
// ran before the first step.
func (s *stage) restore(ctx context.Context, initial model.Topology) error {
	var errs []error
	var extra []model.Endpoint
	for _, p := range s.declared.Pods {
		want, ok := initial.Pod(p.Endpoint())
		switch {
		case p.Namespace == canaryNamespace:
		case !ok || p.Node != want.Node || p.HostNetwork != want.HostNetwork || !slices.Equal(p.Ports, want.Ports):
			extra = append(extra, p.Endpoint()) // another pod, or another one of the same name
		case !maps.Equal(p.Labels, want.Labels):
			errs = append(errs, s.labelPod(ctx, p.Endpoint(), want.Labels))
		}
	}
	for _, ns := range initial.Namespaces {
		have, ok := s.declared.Namespace(ns.Name)
		if ok && !sameLabels(have.Labels, ns.Labels) {
			errs = append(errs, s.labelNamespace(ctx, ns.Name, ns.Labels))
		}
	}
	// What a step left half-made is not declared.
	for _, e := range s.watch.known() {
		_, declared := s.declared.Pod(e)
		if ns, _, _ := e.Split(); !declared && ns != canaryNamespace {
			extra = append(extra, e)
		}
	}
	if len(extra) > 0 {
		errs = append(errs, s.removePods(ctx, extra))
	}
	var missing []model.Pod
	for _, p := range initial.Pods {
		if _, ok := s.declared.Pod(p.Endpoint()); !ok {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		errs = append(errs, s.createPods(ctx, missing))
	}
	return errors.Join(errs...)
}

// clear removes everything but the canaries, and returns when it is gone. Namespaces go too: what somebody else did to them, or put into
// them, must not reach the next scenario.
func (s *stage) clear(ctx context.Context) error {
	if err := s.become(ctx, model.Topology{}); err != nil {
		return err
	}
	var calls []func() error
	for ns, uid := range s.made {
		if ns != canaryNamespace {
			calls = append(calls, func() error { return s.deleteNamespace(ctx, s.names.real(ns), uid) })
		}
	}
	if err := sideBySide(apiConcurrency, calls...); err != nil {
		return err
	}
	maps.DeleteFunc(s.made, func(ns string, _ types.UID) bool { return ns != canaryNamespace })
	clear(s.idle)
	return nil
}

// close removes everything.
func (s *stage) close(ctx context.Context) error {
	defer s.watch.stop()
	// What holds one of them up must not hold up the rest.
	errs := []error{s.unapplyAll(ctx)}
	errs = append(errs, s.removePods(ctx, s.pods()))
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
	return errors.Join(append(errs, sideBySide(apiConcurrency, calls...), s.awaitEnds(ctx))...)
}

func (s *stage) deleteService(ctx context.Context, svc model.Service) error {
	err := s.client.CoreV1().Services(s.names.real(svc.Namespace)).Delete(ctx, svc.Name, deletion(s.services[svc.Endpoint()].UID))
	if err != nil && !isGone(err) {
		return fmt.Errorf("delete service %s: %w", svc.Endpoint(), err)
	}
	return nil
}

// deleteNamespace returns when the namespace is gone.
func (s *stage) deleteNamespace(ctx context.Context, name string, uid types.UID) error {
	namespaces := s.client.CoreV1().Namespaces()
	err := namespaces.Delete(ctx, name, deletion(uid))
	if isGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	w, err := namespaces.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("watch the end of namespace %s: %w", name, err)
	}
	defer w.Stop()
	poll := time.NewTicker(250 * time.Millisecond) // a watch may start after the end, or break
	defer poll.Stop()
	for {
		got, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && got.UID != uid {
			return nil
		}
		select {
		case <-w.ResultChan():
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("namespace %s is still there%s: %w", name, namespaceTrouble(got), context.Cause(ctx))
		}
	}
}

// namespaceTrouble quotes what a namespace says of why it does not go.
func namespaceTrouble(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	var said []string
	if held := cluster.Held("namespaces", "", ns.Name, ns.Finalizers); held != "" {
		said = append(said, held)
	}
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue && c.Message != "" {
			said = append(said, c.Message)
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}

// removeCanaryPolicies removes them where they do not go with their namespace.
func (s *stage) removeCanaryPolicies(ctx context.Context) error {
	policies := s.client.NetworkingV1().NetworkPolicies(s.names.real(canaryNamespace))
	list, err := policies.List(ctx, metav1.ListOptions{LabelSelector: cluster.RunLabel + "=" + s.runID})
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
func (s *stage) agent(_ context.Context, e model.Endpoint) (probes.Agent, error) {
	if a, ok := s.agents[e]; ok {
		return a, nil
	}
	return nil, fmt.Errorf("no agent for %s", e)
}

// topology is the declared topology with live addresses, without the canaries.
func (s *stage) topology() model.Topology {
	t := s.declared
	t.Pods = slices.DeleteFunc(slices.Clone(t.Pods), func(p model.Pod) bool { return p.Namespace == canaryNamespace })
	t.Namespaces = slices.DeleteFunc(slices.Clone(t.Namespaces), func(n model.Namespace) bool { return n.Name == canaryNamespace })
	return t
}
