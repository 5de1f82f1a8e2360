package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
	"github.com/netproof/netproof/probes/nsagent"
)

// onLinux tells whether containers can run on the kernel of this process.
const onLinux = true

// directProbing sends probes out of this process. The zero value has not begun.
type directProbing struct{ engine *nsagent.Engine }

func (d directProbing) close() error {
	if d.engine == nil {
		return nil
	}
	return d.engine.Close()
}

// Direct implements [remote.Provider]. It works for root, where the containers run on this very kernel.
func (r *running) Direct(ctx context.Context, pod *corev1.Pod, key []byte) (probes.Agent, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("entering the network namespaces of pods takes root: %w", errors.ErrUnsupported)
	}
	ns, err := r.podNamespace(ctx, pod)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.direct.engine == nil {
		if r.direct.engine, err = nsagent.NewEngine(nsagent.Options{}); err != nil {
			return nil, err
		}
	}
	agent, err := r.direct.engine.NewAgent(nsagent.Config{
		Identity:  probes.Identity{Endpoint: cluster.EndpointOf(pod), UID: string(pod.UID)},
		Namespace: ns, Key: message.Key(key),
	})
	if err != nil {
		return nil, fmt.Errorf("make agent in the network namespace of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return agent, nil
}

// podNamespace opens the network namespace of a pod: the container runtime in the node tells its path, and the node's
// container is the place to look for that.
func (r *running) podNamespace(ctx context.Context, pod *corev1.Pod) (netns.NsHandle, error) {
	fail := func(err error) (netns.NsHandle, error) {
		return netns.None(), fmt.Errorf("find the network namespace of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	all, err := inspectContainers(ctx, r.engine, pod.Spec.NodeName)
	if err != nil {
		return fail(err)
	}
	if len(all) != 1 || all[0].State.Pid == 0 {
		return fail(fmt.Errorf("node %s does not run", pod.Spec.NodeName))
	}
	pid := all[0].State.Pid
	host, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/hostname", pid))
	if err != nil || strings.TrimSpace(string(host)) != pod.Spec.NodeName {
		return fail(fmt.Errorf("the containers are not on this machine: %w", errors.ErrUnsupported))
	}
	if pod.Spec.HostNetwork {
		ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return fail(err)
		}
		return ns, nil
	}
	// By itself crictl waits for its runtime for 2 s, and a node that starts many pods takes longer.
	out, err := r.engine.Output(ctx, "exec", pod.Spec.NodeName, "sh", "-c",
		`id=$(crictl --timeout 10s pods --quiet --no-trunc --state Ready --label io.kubernetes.pod.uid="$1") && [ -n "$id" ] &&
		crictl --timeout 10s inspectp $id`, "sh", string(pod.UID))
	if err != nil {
		return fail(err)
	}
	path, err := parseSandbox([]byte(out))
	if err != nil {
		return fail(err)
	}
	ns, err := openIn(fmt.Sprintf("/proc/%d/root", pid), path)
	if err != nil {
		return fail(err)
	}
	return ns, nil
}

// openIn opens a path as those see it who live in root: links do not lead out of it.
func openIn(root, path string) (netns.NsHandle, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return netns.None(), fmt.Errorf("open %s: %w", root, err)
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return netns.None(), fmt.Errorf("open %s: %w", filepath.Join(root, path), err)
	}
	return netns.NsHandle(fd), nil
}
