//go:build !linux

package kind

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/probes"
)

// onLinux tells whether containers can run on the kernel of this process.
const onLinux = false

// directProbing has nothing to keep.
type directProbing struct{}

func (directProbing) close() error { return nil }

// Direct implements [remote.Provider]. The network namespaces of pods are in another kernel than this process.
func (*running) Direct(context.Context, *corev1.Pod, []byte) (probes.Agent, error) {
	return nil, fmt.Errorf("entering the network namespaces of pods takes Linux: %w", errors.ErrUnsupported)
}
