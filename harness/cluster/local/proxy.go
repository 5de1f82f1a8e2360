package local

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

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
		"mode":               "nftables",
		"clusterCIDR":        strings.Join(pods, ","),
		"bindAddress":        "127.0.0.1",
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		// A service must not lag behind the pods that are probed through it.
		"nftables": map[string]any{"minSyncPeriod": "10ms", "syncPeriod": "1h"},
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
