package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnASystemThatIsNotLinuxTheFixIsOneForIt(t *testing.T) {
	silent := Recognize(Docker, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
	forbidden := Recognize(Docker, "permission denied while trying to connect to the Docker daemon socket")
	for _, p := range []*Problem{missing("Docker or Podman"), silent, forbidden} {
		require.NotNil(t, p)
		here := p.Fix
		assert.Equal(t, here, p.on("linux").Fix)
		for _, system := range []string{"darwin", "windows"} {
			elsewhere := p.on(system).Error()
			assert.Contains(t, elsewhere, "Docker Desktop")
			assert.Contains(t, elsewhere, "podman machine")
			for _, word := range []string{"apt-get", "systemctl", "sudo", "usermod", "ci/docker.sh", "--provider local"} {
				assert.NotContains(t, elsewhere, word)
			}
		}
	}
	full := Recognize(Docker, "no space left on device")
	assert.Equal(t, full.Fix, full.on("darwin").Fix, "a full disk is one everywhere")
}

// The texts are what the programs wrote; where it says so, on this project's machines.
func TestWhatProgramsWriteIsRecognized(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want Kind
		fix  string
	}{
		"docker 28.2, no daemon": {
			"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", Unreachable, "systemctl start docker",
		},
		"docker 28.2 over ssh, host does not answer": {
			`error during connect: Get "http://docker.example.com/v1.50/containers/json": command [ssh -o ConnectTimeout=30 -T -l nobody -- localhost docker system dial-stdio] has exited with exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=ssh: connect to host localhost port 22: Connection refused`,
			Unreachable, "DOCKER_HOST",
		},
		"docker 28.2, not in group docker": {
			`permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/containers/json": dial unix /var/run/docker.sock: connect: permission denied`,
			Forbidden, "usermod -aG docker",
		},
		"docker client too new": {
			"Error response from daemon: client version 1.50 is too new. Maximum supported API version is 1.41", TooNew, "DOCKER_API_VERSION",
		},
		"docker 20.10, port taken by another container": {
			"docker: Error response from daemon: driver failed programming external connectivity on endpoint npb (8d63229154e1aaee3c857b0880af0675d80b6e78a6906d22f25c13776238e63e): Bind for 127.0.0.1:5599 failed: port is already allocated\n\nRun 'docker run --help' for more information",
			PortTaken, "try again",
		},
		"docker 20.10, port taken by another program": {
			"docker: Error response from daemon: driver failed programming external connectivity on endpoint npc (1f): Error starting userland proxy: listen tcp4 127.0.0.1:5600: bind: address already in use.",
			PortTaken, "try again",
		},
		"docker 20.10, container exists": {
			`docker: Error response from daemon: Conflict. The container name "/npa" is already in use by container "40833edadd4fcd32c483f21cdb50a511f9feb950a818d875ebbec844bfa35c16". You have to remove (or rename) that container to be able to reuse that name.`,
			NameTaken, "another name",
		},
		"kind, cluster exists": {`node(s) already exist for a cluster with the name "kind"`, NameTaken, "kind get clusters"},
		"docker 20.10, networks used up": {
			"Error response from daemon: could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network", NoAddresses, "network prune",
		},
		"docker 28, networks used up": {"Error response from daemon: all predefined address pools have been fully subnetted", NoAddresses, "default-address-pools"},
		"docker, kernel without IPv6": {
			"Error response from daemon: Cannot read IPv6 setup for bridge br-1c4: open /proc/sys/net/ipv6/conf/br-1c4/disable_ipv6: no such file or directory", NoIPv6, "--ip-family ipv4",
		},
		"docker 20.10 with runc 1.1, capability withheld": {
			"docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: unable to apply caps: operation not permitted: unknown",
			NoPrivilege, "ci/docker.sh",
		},
		"systemd in a node, no inotify instances": {"Failed to create control group inotify object: Too many open files", NoHandles, "max_user_instances=512"},
		"kubelet, no inotify instances": {
			`E1127 09:00:00.000000 1 run.go:72] "command failed" err="inotify_init: too many open files"`, NoHandles, "max_user_watches=524288",
		},
		"docker, disk full": {
			"docker: Error response from daemon: mkdir /var/lib/docker/overlay2/1f-init: no space left on device.", DiskFull, "system prune",
		},
		"docker, no systemd hierarchy": {
			`docker: Error response from daemon: cgroups: cgroup mountpoint does not exist: unknown.`, Cgroups, "mount -t cgroup",
		},
		"kubelet 1.36 on cgroup v1": {
			`E0101 run.go:72] "command failed" err="failed to run Kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release"`,
			Cgroups, "unified_cgroup_hierarchy",
		},
		"kind, rootless on cgroup v1": {"running kind with rootless provider requires cgroup v2, see https://kind.sigs.k8s.io/docs/user/rootless/", Cgroups, "rootless"},
		"docker, no nat table": {
			"Error response from daemon: Failed to Setup IP tables: Unable to enable NAT rule:  (iptables failed: iptables --wait -t nat -I POSTROUTING -s 172.18.0.0/16 ! -o br-1 -j MASQUERADE: iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
			KernelLacks, "modprobe",
		},
		"docker 20.10 with a container of 21.05's flag": {"unknown flag: --cgroupns", TooOld, "20.10"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Recognize("docker", tc.text)
			require.NotNil(t, p)
			assert.Equal(t, tc.want, p.Kind)
			assert.Contains(t, p.Fix, tc.fix)
			assert.NotContains(t, p.Error(), "ENGINE")
		})
	}
}

func TestOrdinaryWordsAreNoProblem(t *testing.T) {
	for _, text := range []string{
		"", "Error response from daemon: No such container: nope", "docker: Error response from daemon: network np-nope not found",
		"failed to init node with kubeadm: command \"docker exec ...\" failed with error: exit status 1",
	} {
		assert.Nil(t, Recognize("docker", text), text)
	}
	// In a node's log these mean nothing; as the output of a command they do.
	for _, text := range []string{
		"modprobe: FATAL: Module overlay not found in directory /lib/modules/6.18.44", // of containerd's unit, on each kernel that has it built in
		"dial tcp 172.18.0.2:6443: connect: connection refused", "listen tcp :10250: bind: address already in use"} {
		assert.Nil(t, RecognizeNode("docker", text), text)
	}
	assert.Equal(t, NoHandles, RecognizeNode("docker", "bind: address already in use\nFailed to allocate manager object: Too many open files").Kind)
}

func TestAnImageThatCannotBePulledIsNamedWithTheWayAroundIt(t *testing.T) {
	for name, text := range map[string]string{
		"docker 20.10, no network": `Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.255.255.53:53: no such host`,
		"no such tag":              "Error response from daemon: manifest for kindest/node:v1.99.0 not found: manifest unknown: manifest unknown",
		"no such repository":       "Error response from daemon: pull access denied for kindest/nod, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
		"rate limit":               "Error response from daemon: toomanyrequests: You have reached your pull rate limit.",
		"proxy":                    `Error response from daemon: Get "https://registry-1.docker.io/v2/": proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused`,
	} {
		t.Run(name, func(t *testing.T) {
			cause := &Error{Program: "docker", Args: []string{"pull", "-q", "kindest/node:v1.36.3"}, Output: text, Err: errors.New("exit status 1")}
			err := ExplainPull("docker", "kindest/node:v1.36.3", cause)
			p, ok := errors.AsType[*Problem](err)
			require.True(t, ok)
			assert.Equal(t, NoImage, p.Kind)
			require.ErrorIs(t, err, error(cause))
			for _, part := range []string{"kindest/node:v1.36.3", "make kind-images", "NETPROOF_KIND_IMAGE", strings.Join(strings.Fields(text), " ")} {
				assert.ErrorContains(t, err, part)
			}
		})
	}
	down := &Error{Program: "docker", Output: "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", Err: errors.New("exit status 1")}
	p, ok := errors.AsType[*Problem](ExplainPull("docker", "x", down))
	require.True(t, ok)
	assert.Equal(t, Unreachable, p.Kind, "it is not the image's fault")
}

func TestWhatIsGoneIsToldFromWhatCouldNotBeRemoved(t *testing.T) {
	for text, want := range map[string]bool{
		"Error response from daemon: No such container: nope":                                          true,
		"Error: No such network: np-nope":                                                              true,
		"Error response from daemon: network np-nope not found":                                        true,
		"Error response from daemon: no such image: nope:1: No such image: nope:1":                     true,
		`Error: no container with name or ID "x" found: no such container`:                             true,
		"Error response from daemon: removal of container 40833edadd4f is already in progress":         true,
		"Error: nope: image not known":                                                                 true,
		"Error response from daemon: error while removing network: network np-n1 has active endpoints": false,
		"Cannot connect to the Docker daemon at unix:///var/run/docker.sock.":                          false,
		"docker: command not found":                                                                    false,
	} {
		assert.Equal(t, want, IsGone(&Error{Output: text, Err: errors.New("exit status 1")}), text)
	}
}
