package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

const (
	// readyTime bounds the wait where the context has no deadline of its own.
	readyTime = 5 * time.Minute
	// logTime is what may be spent on asking for logs when there is no time left.
	logTime = 5 * time.Second
	// loggedProblems is of how many problems the log is asked for, and logLines how much of it.
	loggedProblems = 3
	logLines       = 5
)

// NotReadyError says what was missing when the time was up, or what can never come.
type NotReadyError struct {
	Plugin   string
	Problems []Problem
	// Cause is why the wait has ended.
	Cause error
}

// Problem is one thing that is not as it should be.
type Problem struct {
	// Node, Pod (as namespace/name) and Container say where, as far as that is known.
	Node, Pod, Container string
	// State says what is wrong there.
	State string
	// Log holds the last lines of the container's log.
	Log []string
	// final tells that waiting does not help.
	final bool
}

func (p Problem) String() string {
	var where []string
	for _, part := range [][2]string{{"node ", p.Node}, {"pod ", p.Pod}, {"container ", p.Container}} {
		if part[1] != "" {
			where = append(where, part[0]+part[1])
		}
	}
	text := p.State
	if len(where) > 0 {
		text = strings.Join(where, ", ") + ": " + text
	}
	for _, line := range p.Log {
		text += "\n      | " + line
	}
	return text
}

func (e *NotReadyError) Error() string {
	text := fmt.Sprintf("%s is not ready: %v", e.Plugin, e.Cause)
	for _, p := range e.Problems {
		text += "\n  " + p.String()
	}
	return text
}

func (e *NotReadyError) Unwrap() error { return e.Cause }

// AwaitReady returns when the plugin's agent is ready on every node and every node is ready. Every node that runs Linux
// counts, unless it has a taint that the agent does not tolerate: a node that a DaemonSet leaves out by its selector
// would take pods without enforcing anything there. Where ctx has no deadline the wait ends after five minutes. The
// error is a [NotReadyError], except where the API server refuses to answer.
func AwaitReady(ctx context.Context, client kubernetes.Interface, plugin Plugin) error {
	selector, err := labels.Parse(plugin.Agent.Selector)
	if err != nil || plugin.Agent.Selector == "" {
		return fmt.Errorf("await %s: its agents' selector %q is none: %w", plugin.Name, plugin.Agent.Selector, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, readyTime)
		defer cancel()
	}
	l := look{client: client, selector: selector}
	problems := []Problem{{State: "the API server has not answered"}}
	for {
		now, err := l.at(ctx)
		switch {
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return fmt.Errorf("await %s: %w", plugin.Name, err)
		case err != nil && ctx.Err() == nil:
			// The API server may be starting again.
			problems = []Problem{{State: err.Error()}}
		case err == nil:
			problems = now.problems()
		}
		if len(problems) == 0 {
			return nil
		}
		cause := context.Cause(ctx)
		if cause == nil && slices.ContainsFunc(problems, func(p Problem) bool { return p.final }) {
			cause = errFinal
		}
		if cause != nil {
			return &NotReadyError{Plugin: plugin.Name, Problems: l.withLogs(ctx, problems), Cause: cause}
		}
		awaitChange(ctx, now.versions, l.watchers())
	}
}

var errFinal = errors.New("it can never be")

// look reads what AwaitReady judges.
type look struct {
	client   kubernetes.Interface
	selector labels.Selector
}

// sight is the cluster at one moment.
type sight struct {
	selector labels.Selector
	nodes    []corev1.Node
	agents   []appsv1.DaemonSet
	pods     []corev1.Pod
	versions map[string]string
}

func (l look) at(ctx context.Context) (sight, error) {
	nodes, err := l.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return sight{}, fmt.Errorf("list nodes: %w", err)
	}
	sets, err := l.client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return sight{}, fmt.Errorf("list daemon sets: %w", err)
	}
	pods, err := l.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: l.selector.String()})
	if err != nil {
		return sight{}, fmt.Errorf("list pods: %w", err)
	}
	s := sight{selector: l.selector, nodes: nodes.Items, pods: pods.Items, versions: map[string]string{
		"nodes": nodes.ResourceVersion, "sets": sets.ResourceVersion, "pods": pods.ResourceVersion,
	}}
	for _, set := range sets.Items {
		if l.selector.Matches(labels.Set(set.Spec.Template.Labels)) {
			s.agents = append(s.agents, set)
		}
	}
	return s, nil
}

func (l look) watchers() map[string]watcher {
	return map[string]watcher{
		"nodes": from(l.client.CoreV1().Nodes().Watch, metav1.ListOptions{}),
		"sets":  from(l.client.AppsV1().DaemonSets("").Watch, metav1.ListOptions{}),
		"pods":  from(l.client.CoreV1().Pods("").Watch, metav1.ListOptions{LabelSelector: l.selector.String()}),
	}
}

// problems judges what was seen: none means ready.
func (s sight) problems() []Problem {
	if len(s.nodes) == 0 {
		return []Problem{{State: "the cluster has no node"}}
	}
	if len(s.agents) == 0 {
		return []Problem{{State: fmt.Sprintf("there is no DaemonSet whose pods have the labels %s", s.selector)}}
	}
	var problems []Problem
	for i := range s.agents {
		problems = append(problems, setProblems(&s.agents[i])...)
	}
	for i := range s.nodes {
		problems = append(problems, s.nodeProblems(&s.nodes[i])...)
	}
	return problems
}

// setProblems says whether the DaemonSet's controller has seen the newest version and has replaced the pods of older
// ones.
func setProblems(set *appsv1.DaemonSet) []Problem {
	name := "DaemonSet " + set.Namespace + "/" + set.Name
	status := set.Status
	switch {
	case status.ObservedGeneration < set.Generation:
		return []Problem{{State: name + ": its controller has not seen its newest version"}}
	case set.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType && status.UpdatedNumberScheduled < status.DesiredNumberScheduled:
		return []Problem{{State: fmt.Sprintf("%s: %d of %d pods are of its newest version", name, status.UpdatedNumberScheduled, status.DesiredNumberScheduled)}}
	case status.NumberReady < status.DesiredNumberScheduled:
		return []Problem{{State: fmt.Sprintf("%s: %d of %d pods are ready", name, status.NumberReady, status.DesiredNumberScheduled)}}
	}
	return nil
}

// nodeProblems judges one node and the agents on it.
func (s sight) nodeProblems(node *corev1.Node) []Problem {
	if system := node.Labels[corev1.LabelOSStable]; system != "" && system != string(corev1.Linux) {
		return nil
	}
	wanted := slices.ContainsFunc(s.agents, func(set appsv1.DaemonSet) bool { return tolerates(&set, node) })
	if !wanted {
		return nil
	}
	var problems []Problem
	found := false
	for i := range s.pods {
		pod := &s.pods[i]
		if pod.Spec.NodeName != node.Name || pod.DeletionTimestamp != nil {
			continue
		}
		found = true
		if p, ok := podProblem(pod); ok {
			problems = append(problems, p)
		}
	}
	if !found {
		problems = append(problems, Problem{Node: node.Name, State: fmt.Sprintf("no pod with the labels %s is there", s.selector)})
	}
	return append(problems, conditionProblems(node)...)
}

// tolerates tells whether the set's pods may run on the node. The taints that a DaemonSet's controller tolerates in
// every pod (kubernetes.io, DaemonSet, taints and tolerations) all begin with node.kubernetes.io.
func tolerates(set *appsv1.DaemonSet, node *corev1.Node) bool {
	keepsOut := func(t *corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule && !strings.HasPrefix(t.Key, "node.kubernetes.io/")
	}
	_, untolerated := corehelpers.FindMatchingUntoleratedTaint(klog.Logger{}, node.Spec.Taints, set.Spec.Template.Spec.Tolerations, keepsOut, false)
	return !untolerated
}

// conditionProblems says in which way a node is not ready.
func conditionProblems(node *corev1.Node) []Problem {
	ready := false
	var problems []Problem
	for _, c := range node.Status.Conditions {
		switch {
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue:
			ready = true
		case c.Type == corev1.NodeReady, c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue:
			problems = append(problems, Problem{Node: node.Name, State: fmt.Sprintf("the node's condition %s is %s: %s", c.Type, c.Status, cmp.Or(c.Message, c.Reason))})
			ready = ready || c.Type == corev1.NodeReady
		}
	}
	if !ready && len(problems) == 0 {
		problems = append(problems, Problem{Node: node.Name, State: "the node has not said yet whether it is ready"})
	}
	return problems
}

// podProblem says why a pod is not ready: the first container that is not as it should be, else the pod's own words.
func podProblem(pod *corev1.Pod) (Problem, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return Problem{}, false
		}
	}
	p := Problem{Node: pod.Spec.NodeName, Pod: pod.Namespace + "/" + pod.Name}
	for _, c := range pod.Status.InitContainerStatuses {
		if c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 {
			return p.of(c), true
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if !c.Ready {
			return p.of(c), true
		}
	}
	p.State = "it is " + string(pod.Status.Phase)
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			p.State += ": " + c.Message
			break
		}
	}
	return p, true
}

// finalReasons are those for which a container waits that nobody but its author can end.
var finalReasons = []string{"InvalidImageName", "ErrImageNeverPull"}

func (p Problem) of(c corev1.ContainerStatus) Problem {
	p.Container = c.Name
	switch s := c.State; {
	case s.Waiting != nil:
		p.State = "it waits: " + s.Waiting.Reason
		if s.Waiting.Message != "" {
			p.State += ": " + s.Waiting.Message
		}
		p.final = slices.Contains(finalReasons, s.Waiting.Reason)
	case s.Terminated != nil:
		p.State = fmt.Sprintf("it ended with code %d: %s", s.Terminated.ExitCode, cmp.Or(s.Terminated.Message, s.Terminated.Reason))
	case s.Running != nil:
		p.State = "it runs and is not ready"
	default:
		p.State = "it has no state yet"
	}
	if last := c.LastTerminationState.Terminated; last != nil {
		p.State += fmt.Sprintf(" (started again %d times, last ended with code %d)", c.RestartCount, last.ExitCode)
	}
	return p
}

// withLogs adds the last lines of the log to the first problems that are a container's. The time of ctx is over, so it
// has a little of its own.
func (l look) withLogs(ctx context.Context, problems []Problem) []Problem {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTime)
	defer cancel()
	asked := 0
	for i := range problems {
		if problems[i].Container != "" && asked < loggedProblems {
			asked++
			problems[i].Log = l.log(ctx, problems[i])
		}
	}
	return problems
}

// log returns the last lines of a container, or of the run before this one where it has none. There may be no log, so
// an error is no news.
func (l look) log(ctx context.Context, p Problem) []string {
	namespace, name, _ := strings.Cut(p.Pod, "/")
	for _, previous := range []bool{false, true} {
		text, err := l.client.CoreV1().Pods(namespace).
			GetLogs(name, &corev1.PodLogOptions{Container: p.Container, TailLines: new(int64(logLines)), Previous: previous}).DoRaw(ctx)
		if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); err == nil && lines[0] != "" {
			return lines
		}
	}
	return nil
}
