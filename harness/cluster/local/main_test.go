//go:build linux

package local_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"net/netip"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// testTimeout bounds whatever a test waits for. Machines differ; nothing here takes a tenth of it.
const testTimeout = 60 * time.Second

// TestMain runs the tests in a sandbox. A child of a test, which makes a sandbox of its own, runs its role instead.
func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		sandbox.Main(roleRunner(role))
	}
	sandbox.Main(m)
}

func ensureEngines(ctx context.Context, cni string) (*engine.Engines, error) {
	return engine.Ensure(ctx, engine.Options{CNI: cni, EngineDir: os.Getenv(envEngines), Progress: func(e engine.Event) {
		if !e.Cached {
			fmt.Fprintln(os.Stderr, e)
		}
	}})
}

// lab is a cluster under test, and a client of it that any other program could be.
type lab struct {
	*local.Cluster
	client kubernetes.Interface
}

func start(t testing.TB, opts cluster.Options, options ...local.Option) *lab {
	t.Helper()
	engines, err := ensureEngines(t.Context(), opts.CNI)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, engines.Close()) })
	c, err := local.New(engines, options...).Start(deadline(t), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return newLab(t, c)
}

func newLab(t testing.TB, c *local.Cluster) *lab {
	t.Helper()
	config := c.RESTConfig()
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return &lab{Cluster: c, client: client}
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// namespace makes a namespace that is deleted at the end of the test.
func (l *lab) namespace(t testing.TB, name string) string {
	t.Helper()
	_, err := l.client.CoreV1().Namespaces().Create(deadline(t), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { l.removeNamespace(t, name) })
	return name
}

func (l *lab) removeNamespace(t testing.TB, name string) {
	t.Helper()
	err := l.client.CoreV1().Namespaces().Delete(deadline(t), name, metav1.DeleteOptions{})
	require.NoError(t, err)
	eventually(t, "namespace "+name+" is gone", func() (bool, string) {
		ns, err := l.client.CoreV1().Namespaces().Get(deadline(t), name, metav1.GetOptions{})
		if err != nil {
			return true, ""
		}
		return false, fmt.Sprint(ns.Status)
	})
}

// eventually waits until check holds; it says with what it did not.
func eventually(t testing.TB, what string, check func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(testTimeout)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, said := check()
		if ok {
			return
		}
		if time.Now().After(end) {
			require.FailNow(t, "not in time: "+what, said)
		}
		<-ticker.C
	}
}

// podOption changes a pod before it is created.
type podOption func(*corev1.Pod)

func onNode(index int) podOption {
	return func(p *corev1.Pod) { p.Spec.NodeName = fmt.Sprintf("node-%d", index) }
}

func labelled(key, value string) podOption {
	return func(p *corev1.Pod) { p.Labels = map[string]string{key: value} }
}

func hostNetwork(p *corev1.Pod) { p.Spec.HostNetwork = true }

// serving adds a container that declares ports, written as 80/TCP or name:80/TCP.
func serving(ports ...string) podOption {
	return func(p *corev1.Pod) {
		c := corev1.Container{Name: fmt.Sprintf("c%d", len(p.Spec.Containers)), Image: "none"}
		for _, text := range ports {
			name, rest, named := strings.Cut(text, ":")
			if !named {
				name, rest = "", text
			}
			var port corev1.ContainerPort
			number, protocol, _ := strings.Cut(rest, "/")
			_, err := fmt.Sscan(number, &port.ContainerPort)
			if err != nil {
				panic(err)
			}
			port.Name, port.Protocol = name, corev1.Protocol(protocol)
			c.Ports = append(c.Ports, port)
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
}

func newPod(namespace, name string, options ...podOption) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, option := range options {
		option(pod)
	}
	if len(pod.Spec.Containers) == 0 {
		serving("80/TCP")(pod)
	}
	return pod
}

// create creates pods and returns them as they are once all are ready.
func (l *lab) create(t testing.TB, pods ...*corev1.Pod) []*corev1.Pod {
	t.Helper()
	for _, p := range pods {
		_, err := l.client.CoreV1().Pods(p.Namespace).Create(deadline(t), p, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	return l.awaitReady(t, pods...)
}

func (l *lab) awaitReady(t testing.TB, pods ...*corev1.Pod) []*corev1.Pod {
	t.Helper()
	ready := make([]*corev1.Pod, len(pods))
	for i, p := range pods {
		eventually(t, "pod "+p.Namespace+"/"+p.Name+" is ready", func() (bool, string) {
			var err error
			ready[i], err = l.client.CoreV1().Pods(p.Namespace).Get(deadline(t), p.Name, metav1.GetOptions{})
			require.NoError(t, err)
			return isReady(ready[i]), fmt.Sprint(ready[i].Status.Conditions)
		})
	}
	return ready
}

func isReady(p *corev1.Pod) bool {
	c := condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func (l *lab) agent(t testing.TB, pod *corev1.Pod) probes.Agent {
	t.Helper()
	agent, err := l.PodAgent(t.Context(), pod)
	require.NoError(t, err)
	return agent
}

var nonces int

// probe sends one probe.
func probe(t testing.TB, from probes.Agent, to netip.Addr, port int, protocol model.Protocol) probes.Response {
	t.Helper()
	nonces++
	var response probes.Response
	request := probes.Request{
		ID: 1, Nonce: probes.Nonce(fmt.Sprintf("%s-%d", t.Name(), nonces)),
		Protocol: protocol, Address: to, Port: port, TimeoutMs: 200,
	}
	require.NoError(t, from.Probe(deadline(t), []probes.Request{request}, func(r probes.Response) { response = r }))
	return response
}

// answers requires that the endpoint of this name comes to answer.
func answers(t testing.TB, from probes.Agent, to netip.Addr, port int, protocol model.Protocol, by string) {
	t.Helper()
	what := fmt.Sprintf("%s answers %s on %s %d/%s", by, from.Identity().Endpoint, to, port, protocol)
	eventually(t, what, func() (bool, string) {
		r := probe(t, from, to, port, protocol)
		return r.Outcome == probes.Answered && string(r.By.Endpoint) == by, fmt.Sprintf("%+v", r)
	})
}

// silent requires that a connection comes to be cut.
func silent(t testing.TB, from probes.Agent, to netip.Addr, port int, protocol model.Protocol) {
	t.Helper()
	what := fmt.Sprintf("no answer to %s from %s %d/%s", from.Identity().Endpoint, to, port, protocol)
	eventually(t, what, func() (bool, string) {
		r := probe(t, from, to, port, protocol)
		return r.Outcome == probes.Timeout || r.Outcome == probes.Reset || r.Outcome == probes.Prohibited, fmt.Sprintf("%+v", r)
	})
}

func podIPs(t testing.TB, pod *corev1.Pod) []netip.Addr {
	t.Helper()
	var addrs []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		addrs = append(addrs, netip.MustParseAddr(ip.IP))
	}
	require.NotEmpty(t, addrs)
	require.Equal(t, pod.Status.PodIP, addrs[0].String())
	return addrs
}

// service makes a service that selects by one label.
func (l *lab) service(t testing.TB, namespace, name string, change func(*corev1.Service)) []netip.Addr {
	t.Helper()
	both := corev1.IPFamilyPolicyPreferDualStack
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			IPFamilyPolicy: &both,
			Selector:       map[string]string{"app": name},
			Ports:          []corev1.ServicePort{{Port: 8080, TargetPort: intstr.FromInt32(80)}},
		},
	}
	if change != nil {
		change(s)
	}
	s, err := l.client.CoreV1().Services(namespace).Create(deadline(t), s, metav1.CreateOptions{})
	require.NoError(t, err)
	var addrs []netip.Addr
	for _, ip := range s.Spec.ClusterIPs {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	return addrs
}
