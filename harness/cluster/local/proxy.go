//go:build linux

package local

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/cluster/check"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/process"
)

// startProxy starts kube-proxy on a node, which makes cluster IPs and node ports work there.
func (c *Cluster) startProxy(n *localNode) error {
	var pods []string
	for _, p := range c.fabric.Plan.Pods() {
		pods = append(pods, p.String())
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
		"kind":       "KubeProxyConfiguration",
		"clientConnection": map[string]any{
			"kubeconfig": c.Kubeconfig(),
			"qps":        1000,
			"burst":      1000,
		},
		"hostnameOverride":   n.Name,
		"mode":               proxyMode(check.KernelRelease(), nftVersion()),
		"clusterCIDR":        strings.Join(pods, ","),
		"bindAddress":        "127.0.0.1",
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		// A service must not lag behind the pods that are probed through it.
		"nftables": map[string]any{"minSyncPeriod": "10ms", "syncPeriod": "1h"},
		"iptables": map[string]any{"minSyncPeriod": "10ms", "syncPeriod": "1h"},
		// The limits of connection tracking belong to the machine.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	})
	if err != nil {
		return fmt.Errorf("configure kube-proxy of %s: %w", n.Name, err)
	}
	file := c.path("kube-proxy-" + n.Name + ".json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return fmt.Errorf("configure kube-proxy of %s: %w", n.Name, err)
	}
	_, err = c.processes.Start(n.Thread(), process.Command{
		Name: n.Name + "/kube-proxy",
		Path: c.engines.Path("kube-proxy"),
		Args: []string{"--config=" + file, "--v=0"},
		Env:  environment("GOGC=50", "GOMAXPROCS=2"),
		Nice: 5,
	})
	return err
}

// proxyMode is how kube-proxy programs the kernel. Its nftables mode needs Linux 5.13 and nft 1.0.1, and ends at once
// with anything older; it is the quicker one.
func proxyMode(kernel, nft string) string {
	if atLeast(kernel, 5, 13, 0) && atLeast(nft, 1, 0, 1) {
		return "nftables"
	}
	return "iptables"
}

// version is the first one in a text.
var version = regexp.MustCompile(`(\d+)\.(\d+)(?:\.(\d+))?`)

// atLeast tells whether the version in a text is this one or newer. A text without a version is older than any.
func atLeast(text string, least ...int) bool {
	found := version.FindStringSubmatch(text)
	if found == nil {
		return false
	}
	var numbers []int
	for _, s := range found[1:] {
		n, _ := strconv.Atoi(s) // a missing third part is 0
		numbers = append(numbers, n)
	}
	return slices.Compare(numbers, least) >= 0
}

func nftVersion() string {
	path := hosttools.Find("nft")
	if path == "" {
		return ""
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return ""
	}
	return string(out)
}
