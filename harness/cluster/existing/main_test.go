//go:build linux

package existing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/cluster/sweep"
	"github.com/netproof/netproof/harness/policy"
)

// TestMain runs the tests in a sandbox. The engines are built outside, where there is a network.
func TestMain(m *testing.M) {
	sandbox.Init()
	if !sandbox.Inside() {
		engines, err := ensureEngines()
		if err == nil {
			err = engines.Close()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "build engines: %v\n", err)
			os.Exit(1)
		}
	}
	sandbox.Main(suite{m})
}

// suite closes the shared cluster after the last test.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	if shared != nil {
		if err := shared.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

func ensureEngines() (*engine.Engines, error) {
	return engine.Ensure(context.Background(), engine.Options{
		CNI: "calico", EngineDir: os.Getenv("NETPROOF_ENGINE_DIR"), Progress: engine.NewProgress(os.Stderr, false),
	})
}

// lab is a real cluster of netproof's own that asks for rights, as clusters of others do. Its pods have no images, so
// that a run reaches them by its own way; everything else is what any client finds.
type lab struct {
	*local.Cluster
	engines []*engine.Engines
	dir     string
	// admin may do everything.
	admin  *rest.Config
	client kubernetes.Interface
}

// labRights are those on all the policies that the lab serves.
var labRights = RBACOptions{Policies: []string{policy.Admin, policy.Calico}}

// shared is made by the first test that needs it.
var shared *lab

// authorizer starts the API server with RBAC, where local clusters let everybody do everything.
const authorizer = `#!/bin/sh
for argument; do
  shift
  case $argument in --authorization-mode=*) argument=--authorization-mode=RBAC ;; esac
  set -- "$@" "$argument"
done
exec %s "$@"
`

// theLab is the cluster, with the rights of the manifest, and nothing that an earlier test left.
func theLab(t *testing.T) *lab {
	t.Helper()
	if shared == nil {
		l, err := newLab()
		require.NoError(t, err)
		shared = l
		text, err := Manifest(labRights)
		require.NoError(t, err)
		l.apply(t, string(text))
	}
	t.Cleanup(func() { shared.clear(t) })
	return shared
}

func newLab() (l *lab, err error) {
	built, err := ensureEngines()
	if err != nil {
		return nil, err
	}
	l = &lab{engines: []*engine.Engines{built}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.stop())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "netproof-engines-"); err != nil {
		return nil, err
	}
	for _, program := range []string{"etcd", "kube-apiserver", "calico-node", "host-local"} {
		dir := filepath.Dir(built.Path(program))
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Name() != "kube-apiserver" && e.Name() != "engine.json" {
				_ = os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(l.dir, e.Name())) // two of a folder are there already
			}
		}
	}
	script := fmt.Sprintf(authorizer, built.Path("kube-apiserver"))
	if err := os.WriteFile(filepath.Join(l.dir, "kube-apiserver"), []byte(script), 0o755); err != nil {
		return nil, err
	}
	changed, err := engine.Ensure(context.Background(), engine.Options{CNI: "calico", EngineDir: l.dir})
	if err != nil {
		return nil, err
	}
	l.engines = append(l.engines, changed)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if l.Cluster, err = local.New(changed).Start(ctx, cluster.Options{CNI: "calico", Nodes: 2}); err != nil {
		return nil, err
	}
	l.admin = l.Cluster.RESTConfig()
	l.admin.WarningHandler = rest.NoWarnings{}
	l.admin.QPS = -1
	l.client, err = kubernetes.NewForConfig(l.admin)
	return l, err
}

func (l *lab) stop() error {
	var errs []error
	if l.Cluster != nil {
		errs = append(errs, l.Cluster.Close(context.Background()))
	}
	for _, e := range l.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// as gives the access of somebody else.
func (l *lab) as(user string, groups ...string) *rest.Config {
	cfg := rest.CopyConfig(l.admin)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	return cfg
}

// account gives the access of the service account of the manifest.
func (l *lab) account() *rest.Config {
	return l.as("system:serviceaccount:"+lease.Namespace+":netproof", "system:serviceaccounts", "system:serviceaccounts:"+lease.Namespace)
}

// apply applies the documents of a text as an administrator would. Unknown fields are errors.
func (l *lab) apply(t *testing.T, text string) {
	t.Helper()
	dyn, err := dynamic.NewForConfig(l.admin)
	require.NoError(t, err)
	groups, err := restmapper.GetAPIGroupResources(l.client.Discovery())
	require.NoError(t, err)
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for _, doc := range documents(t, []byte(text)) {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal(doc, &object.Object))
		mapping, err := mapper.RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
		require.NoError(t, err, "%s", doc)
		var in dynamic.ResourceInterface = dyn.Resource(mapping.Resource)
		if object.GetNamespace() != "" {
			in = dyn.Resource(mapping.Resource).Namespace(object.GetNamespace())
		}
		_, err = in.Apply(soon(t), object.GetName(), object, metav1.ApplyOptions{FieldManager: "test", Force: true})
		require.NoError(t, err, "%s", doc)
	}
}

// clear removes all that tests made, as an administrator.
func (l *lab) clear(t *testing.T) {
	t.Helper()
	ctx := soon(t)
	leases := l.client.CoordinationV1().Leases(lease.Namespace)
	require.NoError(t, leases.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	all, err := l.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	for _, ns := range all.Items {
		if sweep.IsBuiltIn(ns.Name) {
			continue
		}
		err := l.client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
		if !apierrors.IsNotFound(err) {
			require.NoError(t, err)
		}
		eventually(t, "namespace "+ns.Name+" goes", func() bool {
			_, err := l.client.CoreV1().Namespaces().Get(soon(t), ns.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
}

func object(resource, namespace, name, runID string) sweep.Object {
	return sweep.Object{Resource: resource, Namespace: namespace, Name: name, Run: runID}
}

func stay(what, why string) sweep.Stay { return sweep.Stay{What: what, Why: why} }

// there tells whether an object is there, such as pods x/a.
func (l *lab) there(t *testing.T, o sweep.Object) bool {
	t.Helper()
	dyn, err := dynamic.NewForConfig(l.admin)
	require.NoError(t, err)
	resource, group, _ := strings.Cut(o.Resource, ".")
	kind := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	_, err = dyn.Resource(kind).Namespace(o.Namespace).Get(soon(t), o.Name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(t, err)
	}
	return err == nil
}

// heard collects what progress says.
type heard struct{ lines []string }

func (h *heard) add(line string) { h.lines = append(h.lines, line) }

func (h *heard) contains(t *testing.T, text string) {
	t.Helper()
	assert.Contains(t, strings.Join(h.lines, "\n"), text)
}
