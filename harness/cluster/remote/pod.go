package remote

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/podagent"
)

// agentUser is the user of probe pods; it is nobody of the node's.
const agentUser = 65532

// firstFreePort is the first port that needs no privilege, where nobody changed that.
const firstFreePort = 1024

// PreparePod completes a probe pod: the image and its command, and as few rights as it can do with. It satisfies the
// level restricted of the Pod Security Standards
// (https://kubernetes.io/docs/concepts/security/pod-security-standards/), except on the host network, which only the
// level privileged admits.
func (c *Cluster) PreparePod(pod *corev1.Pod) {
	settings := podagent.Settings{
		Identity: probes.Identity{Endpoint: cluster.EndpointOf(pod)}, Commitment: podagent.Commitment(c.key),
	}
	low := false
	for _, p := range pod.Spec.Containers[0].Ports {
		settings.Ports = append(settings.Ports, model.Port{Number: int(p.ContainerPort), Protocol: model.Protocol(p.Protocol)})
		low = low || p.ContainerPort < firstFreePort
	}
	yes, no, user := true, false, int64(agentUser)
	container := &pod.Spec.Containers[0]
	container.Name, container.Image, container.ImagePullPolicy = containerName, c.cfg.Image, c.cfg.PullPolicy
	container.Command = []string{AgentPath, "agent", "serve"}
	container.Env = append(envVars(settings.Environment()), corev1.EnvVar{
		Name: podagent.UIDEnv, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.uid"}},
	})
	container.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("24Mi")},
		// A throttled prober would wait longer than the network takes; it has a whole processor for the moments when it
		// needs one.
		Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("192Mi")},
	}
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	// A pod whose agent ended has lost its memory of what it saw: it must not come back as if it had not.
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	switch {
	case low && pod.Spec.HostNetwork:
		// The sysctl would be the node's; the capability has an effect for root alone.
		root := int64(0)
		pod.Spec.SecurityContext.RunAsNonRoot, pod.Spec.SecurityContext.RunAsUser = nil, &root
		container.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
	case low:
		// One of the safe sysctls, which the level restricted admits.
		pod.Spec.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}
	}
}

func envVars(environment []string) []corev1.EnvVar {
	var out []corev1.EnvVar
	for _, e := range environment {
		name, value, _ := strings.Cut(e, "=")
		out = append(out, corev1.EnvVar{Name: name, Value: value})
	}
	return out
}

// The labels that tell Pod Security admission what a namespace admits, see
// https://kubernetes.io/docs/concepts/security/pod-security-admission/.
const enforceLabel = "pod-security.kubernetes.io/enforce"

// NamespaceLabels are those that a namespace needs for its probe pods.
func (c *Cluster) NamespaceLabels(pods []model.Pod) model.Labels {
	level := "restricted"
	if slices.ContainsFunc(pods, func(p model.Pod) bool { return p.HostNetwork }) {
		level = "privileged"
	}
	return model.Labels{enforceLabel: level}
}
