package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// reachable checks that this user reaches the API server of a local cluster from outside its sandbox, and nobody else
// does: reachable NAME.
func reachable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: reachable NAME")
	}
	ts.Check(ts.Exec("netproof", "cluster", "list", "--format", "json"))
	var clusters []struct {
		Name   string
		Detail struct{ KubeconfigOutside string }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &clusters))
	file := ""
	for _, c := range clusters {
		if c.Name == args[0] {
			file = c.Detail.KubeconfigOutside
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	ts.Check(err)
	version := func(config *rest.Config) error {
		client, err := discovery.NewDiscoveryClientForConfig(config)
		ts.Check(err)
		_, err = client.ServerVersion()
		return err
	}
	ts.Check(version(config))
	if err := version(rest.AnonymousClientConfig(config)); !apierrors.IsUnauthorized(err) {
		ts.Fatalf("an anonymous caller is not refused: %v", err)
	}
	wrong := rest.AnonymousClientConfig(config)
	wrong.BearerToken = "guessed"
	if err := version(wrong); !apierrors.IsUnauthorized(err) {
		ts.Fatalf("a caller with another token is not refused: %v", err)
	}
	if os.Geteuid() != 0 {
		return // only root can be another user
	}
	out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		ts.Fatalf("another user reading %s: %v: %s", file, err, out)
	}
}
