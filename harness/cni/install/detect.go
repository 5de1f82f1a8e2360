package install

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cni"
)

// Found is a network plugin that runs on a cluster.
type Found struct {
	Name string
	// Version is the tag of the agent's image; empty where the image has none.
	Version string
	// Enforces tells whether this installation enforces network policies.
	Enforces bool
	// DaemonSet is the one of its agents, as namespace/name.
	DaemonSet string
	// Image is that of its agents.
	Image string
	// Agent tells its agents' pods from others, for [AwaitReady].
	Agent Agent
	// Off holds features that this installation has switched off, with the reason.
	Off map[cni.Feature]string
}

// Plugin is what [AwaitReady] needs of it.
func (f Found) Plugin() Plugin { return Plugin{Name: f.Name, Version: f.Version, Agent: f.Agent} }

// Capabilities are those of the version that runs, without what this installation has switched off. Where nothing is
// known of the version, ok is false.
func (f Found) Capabilities() (capabilities cni.Capabilities, ok bool) {
	capabilities, ok = cni.CapabilitiesOf(f.Name, f.Version)
	for feature, reason := range f.Off {
		capabilities = capabilities.Without(feature, reason)
	}
	return capabilities, ok
}

// known is how a plugin is recognised in DaemonSets.
type known struct {
	name string
	// containers are the names of containers that the DaemonSet has; the first is the agent.
	containers []string
	// image is the last part of the agent's repository, which mirrors keep.
	image string
	// enforces tells whether the DaemonSet enforces policies in its version.
	enforces func(set *appsv1.DaemonSet, version string) bool
}

// plugins are all that are recognised, those that contain another one first.
var plugins = []known{
	{"canal", []string{"calico-node", "kube-flannel"}, "node", always},
	{"calico", []string{"calico-node"}, "node", always},
	{"cilium", []string{"cilium-agent"}, "cilium", always},
	{"kindnet", []string{"kindnet-cni"}, "kindnetd", kindnetEnforces},
	{"kube-router", []string{"kube-router"}, "kube-router", unlessArgument("--run-firewall=false")},
	{"antrea", []string{"antrea-agent"}, "antrea-agent-ubuntu", always},
	{"weave", []string{"weave"}, "weave-kube", hasContainer("weave-npc")},
	{"flannel", []string{"kube-flannel"}, "flannel", never},
	{"ovn-kubernetes", []string{"ovnkube-controller"}, "ovn-kube", always},
	{"ovn-kubernetes", []string{"ovnkube-node"}, "ovn-kube", always},
	{"aws-vpc-cni", []string{"aws-node"}, "amazon-k8s-cni", ifArgument("--enable-network-policy=true")},
	{"azure-npm", []string{"azure-npm"}, "azure-npm", always},
	{"kube-network-policies", []string{"kube-network-policies"}, "kube-network-policies", always},
}

func always(*appsv1.DaemonSet, string) bool { return true }
func never(*appsv1.DaemonSet, string) bool  { return false }

// kindnetSince is the version of kindnetd from which it enforces policies: that of the day when they came (kind issue
// 842), before kind v0.24.0.
const kindnetSince = "v20240723"

// kindnetEnforces takes a version that cannot be read for a new one: it is safer to find an enforcer too many.
func kindnetEnforces(_ *appsv1.DaemonSet, version string) bool {
	since, ok := cni.AtLeast(version, kindnetSince)
	return since || !ok
}

func unlessArgument(argument string) func(*appsv1.DaemonSet, string) bool {
	return func(set *appsv1.DaemonSet, _ string) bool { return !hasArgument(set, argument) }
}

func ifArgument(argument string) func(*appsv1.DaemonSet, string) bool {
	return func(set *appsv1.DaemonSet, _ string) bool { return hasArgument(set, argument) }
}

func hasArgument(set *appsv1.DaemonSet, argument string) bool {
	return slices.ContainsFunc(set.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
		return slices.Contains(c.Command, argument) || slices.Contains(c.Args, argument)
	})
}

func hasContainer(name string) func(*appsv1.DaemonSet, string) bool {
	return func(set *appsv1.DaemonSet, _ string) bool { return container(set, name) != nil }
}

func container(set *appsv1.DaemonSet, name string) *corev1.Container {
	containers := set.Spec.Template.Spec.Containers
	i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &containers[i]
}

// agentIn returns the plugin's agent in a DaemonSet: by the names of its containers, else by its image.
func (k known) agentIn(set *appsv1.DaemonSet) *corev1.Container {
	missing := slices.ContainsFunc(k.containers, func(name string) bool { return container(set, name) == nil })
	if !missing {
		return container(set, k.containers[0])
	}
	// One container's image says nothing about a plugin that is made of two.
	if len(k.containers) > 1 || k.image == "node" {
		return nil
	}
	for i := range set.Spec.Template.Spec.Containers {
		c := &set.Spec.Template.Spec.Containers[i]
		if ref, err := parseImage(c.Image); err == nil && path.Base(ref.path) == k.image {
			return c
		}
	}
	return nil
}

// Detect finds the network plugins of a cluster by the DaemonSets of their agents, sorted by name. It needs to list
// DaemonSets in all namespaces, and reads Cilium's ConfigMap where it may.
func Detect(ctx context.Context, client kubernetes.Interface) ([]Found, error) {
	sets, err := client.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("detect network plugins: list daemon sets: %w", err)
	}
	var found []Found
	for i := range sets.Items {
		f, ok := recognise(&sets.Items[i])
		if !ok || slices.ContainsFunc(found, func(other Found) bool { return other.Name == f.Name }) {
			continue
		}
		if f.Name == "cilium" {
			if err := readCiliumConfig(ctx, client, &f); err != nil {
				return nil, fmt.Errorf("detect network plugins: %w", err)
			}
		}
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b Found) int { return cmp.Compare(a.Name, b.Name) })
	return found, nil
}

func recognise(set *appsv1.DaemonSet) (Found, bool) {
	if system := set.Spec.Template.Spec.NodeSelector[corev1.LabelOSStable]; system != "" && system != string(corev1.Linux) {
		return Found{}, false
	}
	for _, k := range plugins {
		agent := k.agentIn(set)
		if agent == nil {
			continue
		}
		f := Found{
			Name: k.name, DaemonSet: set.Namespace + "/" + set.Name, Image: agent.Image,
			Agent: Agent{Selector: metav1.FormatLabelSelector(set.Spec.Selector), Container: agent.Name},
		}
		if ref, err := parseImage(agent.Image); err == nil {
			f.Version = ref.tag
		}
		f.Enforces = k.enforces(set, f.Version)
		return f, true
	}
	return Found{}, false
}

// readCiliumConfig finds out what this installation has switched off. A ConfigMap that is not there or may not be read
// tells nothing.
func readCiliumConfig(ctx context.Context, client kubernetes.Interface, f *Found) error {
	const name = "cilium-config"
	namespace, _, _ := strings.Cut(f.DaemonSet, "/")
	config, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ConfigMap %s/%s: %w", namespace, name, err)
	}
	if config.Data["enable-policy"] == "never" {
		f.Enforces = false
	}
	if config.Data["enable-sctp"] != "true" {
		f.Off = map[cni.Feature]string{cni.SCTP: fmt.Sprintf("enable-sctp is not true in ConfigMap %s/%s", namespace, name)}
	}
	return nil
}

// TwoEnforcersError says that more than one plugin enforces network policies on a cluster: what is measured there is
// neither's.
type TwoEnforcersError struct{ Enforcers []Found }

func (e *TwoEnforcersError) Error() string {
	var all []string
	fix := "uninstall all but one, as its vendor documents"
	for _, f := range e.Enforcers {
		all = append(all, strings.TrimSpace(f.Name+" "+f.Version)+" (DaemonSet "+f.DaemonSet+")")
		if f.Name == "kindnet" {
			fix = "make the kind cluster with networking.disableDefaultCNI: true, since its default CNI enforces policies from kind v0.24.0 on"
		}
	}
	return "more than one network plugin enforces policies here: " + strings.Join(all, " and ") + "; " + fix
}

// CheckOneEnforcer returns a [TwoEnforcersError] when more than one of the plugins enforces policies. None is no error:
// that a cluster enforces nothing is a finding, which the canary proves.
func CheckOneEnforcer(found []Found) error {
	var enforcers []Found
	for _, f := range found {
		if f.Enforces {
			enforcers = append(enforcers, f)
		}
	}
	if len(enforcers) < 2 {
		return nil
	}
	return &TwoEnforcersError{enforcers}
}
