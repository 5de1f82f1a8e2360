//go:build linux

package nodeagent

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
)

func podWith(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a", UID: "0-1"}, Spec: corev1.PodSpec{Containers: containers}}
}

func TestPortsOfAllContainersAreServed(t *testing.T) {
	ports, err := declaredPorts(podWith(
		corev1.Container{Name: "one", Ports: []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}, {Name: "web", ContainerPort: 80}}},
		corev1.Container{Name: "two", Ports: []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolTCP}}},
		corev1.Container{Name: "three"},
	))
	require.NoError(t, err)
	assert.Equal(t, []model.Port{
		{Number: 53, Protocol: model.UDP},
		{Name: "web", Number: 80, Protocol: model.TCP},
		{Number: 53, Protocol: model.TCP},
	}, ports)
}

func TestOnePortCannotBeServedTwice(t *testing.T) {
	_, err := declaredPorts(podWith(
		corev1.Container{Name: "one", Ports: []corev1.ContainerPort{{ContainerPort: 80}}},
		corev1.Container{Name: "two", Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: corev1.ProtocolTCP}}},
	))
	require.EqualError(t, err, "port 80/TCP is declared twice, by container one and by container two: only one can listen")
}

func TestAddressesComeInTheOrderOfTheClustersFamilies(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")
	networks := []netip.Prefix{netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParsePrefix("10.244.1.0/24")}
	ordered, err := inOrder([]netip.Addr{four, six}, networks)
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{six, four}, ordered)
	_, err = inOrder([]netip.Addr{four}, networks)
	require.ErrorContains(t, err, "none of which is in fd00:10:244:1::/64")
}

func TestEveryAttemptHasAnIDOfItsOwn(t *testing.T) {
	pod := podWith()
	assert.NotEqual(t, containerID(pod, 0), containerID(pod, 1))
	assert.Regexp(t, `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`, containerID(pod, 0), "as the CNI specification asks")
}
