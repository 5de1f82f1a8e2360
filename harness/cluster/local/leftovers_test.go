//go:build linux

package local_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/local"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// assertOnlyFabric requires that the sandbox's own namespace has nothing but what the cluster is made of.
func assertOnlyFabric(t *testing.T) {
	t.Helper()
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, link := range links {
		switch link.Type() {
		case "bridge", "veth":
		default:
			assert.Equal(t, "lo", link.Attrs().Name, "a %s leads somewhere", link.Type())
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	require.NoError(t, err)
	for _, r := range routes {
		ones := 0
		if r.Dst != nil {
			ones, _ = r.Dst.Mask.Size()
		}
		assert.NotZero(t, ones, "the sandbox has no default route: %v", r)
		assert.Nil(t, r.Gw, "the sandbox has no gateway: %v", r)
	}
}

// traces is what a cluster could leave behind, as far as this process can see.
type traces struct {
	processes, interfaces, mounts, files, namespaces []string
}

func look(t *testing.T) traces {
	t.Helper()
	var seen traces
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		seen.interfaces = append(seen.interfaces, l.Attrs().Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		seen.mounts = append(seen.mounts, strings.Fields(line)[4])
	}
	files, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	for _, f := range files {
		seen.files = append(seen.files, f.Name())
	}
	tasks, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	require.NoError(t, err)
	for _, task := range tasks {
		for _, kind := range []string{"net", "mnt"} {
			if id, err := os.Readlink(filepath.Join(task, "ns", kind)); err == nil && !slices.Contains(seen.namespaces, id) {
				seen.namespaces = append(seen.namespaces, id)
			}
		}
	}
	pids, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, pid := range pids {
		if name, err := os.ReadFile(filepath.Join(pid, "comm")); err == nil {
			seen.processes = append(seen.processes, filepath.Base(pid)+" "+strings.TrimSpace(string(name)))
		}
	}
	for _, list := range [][]string{seen.processes, seen.interfaces, seen.mounts, seen.files, seen.namespaces} {
		slices.Sort(list)
	}
	return seen
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	before := look(t)
	engines, err := ensureEngines(t.Context(), "calico")
	require.NoError(t, err)
	defer func() { require.NoError(t, engines.Close()) }()
	c, err := local.New(engines).Start(deadline(t), cluster.Options{CNI: "calico", Nodes: 1})
	require.NoError(t, err)
	l := newLab(t, c)
	_, err = l.client.CoreV1().Namespaces().Create(deadline(t), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	l.create(t, newPod("x", "a"), newPod("x", "b"))
	_, err = l.AddHost(t.Context(), model.Host{Name: "h"})
	require.NoError(t, err)
	require.NoError(t, c.Close(t.Context()))
	require.NoError(t, c.Close(t.Context()), "closing twice is no error")
	eventually(t, "everything is as it was", func() (bool, string) {
		after := look(t)
		return assert.ObjectsAreEqual(before, after), fmt.Sprintf("before %+v\nafter  %+v", before, after)
	})
}

func TestNothingIsLeftAfterAStartThatFails(t *testing.T) {
	before := look(t)
	engines, err := ensureEngines(t.Context(), "none")
	require.NoError(t, err)
	defer func() { require.NoError(t, engines.Close()) }()
	for name, moment := range map[string]time.Duration{"at once": 0, "with the control plane": 300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		_, err = local.New(engines).Create(ctx, cluster.Options{CNI: "none"})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
	}
	eventually(t, "everything is as it was", func() (bool, string) {
		after := look(t)
		return assert.ObjectsAreEqual(before, after), fmt.Sprintf("before %+v\nafter  %+v", before, after)
	})
}

func TestOptionsThatMakeNoClusterAreRefused(t *testing.T) {
	engines, err := ensureEngines(t.Context(), "none")
	require.NoError(t, err)
	defer func() { require.NoError(t, engines.Close()) }()
	for want, opts := range map[string]cluster.Options{
		"unknown network plugin":  {CNI: "flannel"},
		"from 1 to 100 nodes":     {CNI: "none", Nodes: 101},
		"not -1":                  {CNI: "none", Nodes: -1},
		"unknown IP family":       {CNI: "none", IPFamilies: []model.IPFamily{"IPv5"}},
		"IP family IPv4 is named": {CNI: "none", IPFamilies: []model.IPFamily{model.IPv4, model.IPv4}},
		"one or two IP families":  {CNI: "none", IPFamilies: []model.IPFamily{model.IPv4, model.IPv6, model.IPv4}},
	} {
		_, err := local.New(engines).Create(t.Context(), opts)
		require.ErrorContains(t, err, want)
	}
}

// The environment of a child process that makes a cluster in a sandbox of its own.
const (
	envRole    = "NETPROOF_TEST_ROLE"
	envEngines = "NETPROOF_TEST_ENGINES"
)

// roleRunner is what a child does in its sandbox: it makes a cluster with two pods, says "ready" when one answers the
// other, and stays until its standard input ends.
type roleRunner string

func (r roleRunner) Run() int {
	if err := r.run(); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func (r roleRunner) run() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	engines, err := ensureEngines(ctx, string(r))
	if err != nil {
		return err
	}
	fmt.Println("starting")
	c, err := local.New(engines).Start(ctx, cluster.Options{CNI: string(r)})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := c.Close(context.Background()); err == nil {
			err = closeErr
		}
	}()
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		return err
	}
	pods, err := twoPods(ctx, client)
	if err != nil {
		return err
	}
	from, err := c.PodAgent(ctx, pods[0])
	if err != nil {
		return err
	}
	var answer probes.Response
	request := probes.Request{
		ID: 1, Nonce: "child", Protocol: model.TCP,
		Address: netip.MustParseAddr(pods[1].Status.PodIP), Port: 80, TimeoutMs: 2000,
	}
	for answer.Outcome != probes.Answered {
		if err := from.Probe(ctx, []probes.Request{request}, func(resp probes.Response) { answer = resp }); err != nil {
			return err
		}
	}
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	fmt.Println("ready", answer.By.Endpoint, strings.Join(strings.Fields(string(uids)), " "))
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return c.Health(ctx)
}

// twoPods makes pods x/a and x/b, on a node each, and returns them when they are ready.
func twoPods(ctx context.Context, client kubernetes.Interface) ([2]*corev1.Pod, error) {
	var pods [2]*corev1.Pod
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return pods, err
	}
	for i, name := range []string{"a", "b"} {
		if _, err := client.CoreV1().Pods("x").Create(ctx, newPod("x", name, onNode(i)), metav1.CreateOptions{}); err != nil {
			return pods, err
		}
	}
	for i, name := range []string{"a", "b"} {
		for pods[i] == nil || !isReady(pods[i]) {
			var err error
			if pods[i], err = client.CoreV1().Pods("x").Get(ctx, name, metav1.GetOptions{}); err != nil {
				return pods, err
			}
		}
	}
	return pods, nil
}

// child is a process that holds a cluster.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	log   *bytes.Buffer
}

// spawn starts a child; credential is nil for the same user.
func spawn(t *testing.T, cni string, credential *syscall.Credential, env ...string) *child {
	t.Helper()
	c := &child{lines: make(chan string, 16), log: &bytes.Buffer{}}
	c.cmd = exec.Command("/proc/self/exe", "-test.run=^$")
	c.cmd.Env = append(os.Environ(), append(env, envRole+"="+cni)...)
	// The child is to make a sandbox of its own, inside this one.
	c.cmd.Env = slices.DeleteFunc(c.cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "NETPROOF_SANDBOX=") })
	c.cmd.Dir = "/"
	c.cmd.Stderr = c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	stdin, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return c
}

// await returns the first line that begins so.
func (c *child) await(t *testing.T, prefix string) string {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				_ = c.cmd.Wait()
				require.FailNow(t, "the child ended before it said "+prefix, c.log.String())
			}
			if strings.HasPrefix(line, "error:") {
				require.FailNow(t, line, c.log.String())
			}
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-timeout:
			require.FailNow(t, "the child did not say "+prefix, c.log.String())
		}
	}
}

// finish lets the child end by itself and requires that it succeeds.
func (c *child) finish(t *testing.T) {
	t.Helper()
	require.NoError(t, c.stdin.Close())
	for line := range c.lines {
		assert.NotContains(t, line, "error:")
	}
	require.NoError(t, c.cmd.Wait(), c.log.String())
}

func TestTwoClustersRunSideBySide(t *testing.T) {
	before := look(t)
	one, two := spawn(t, "calico", nil), spawn(t, "none", nil)
	assert.Contains(t, one.await(t, "ready"), "x/b")
	assert.Contains(t, two.await(t, "ready"), "x/b")
	one.finish(t)
	two.finish(t)
	eventually(t, "nothing is left", func() (bool, string) {
		after := look(t)
		return assert.ObjectsAreEqual(before, after), fmt.Sprintf("before %+v\nafter  %+v", before, after)
	})
}

func TestNothingIsLeftAfterSIGKILLAtAnyMoment(t *testing.T) {
	before := look(t)
	more := func(n int) func(*testing.T, *child) {
		return func(t *testing.T, _ *child) {
			eventually(t, fmt.Sprintf("there are %d more processes", n), func() (bool, string) {
				now := look(t).processes
				return len(now) >= len(before.processes)+n, fmt.Sprint(now)
			})
		}
	}
	for name, moment := range map[string]func(*testing.T, *child){
		"with the sandbox":           more(2),
		"with the control plane":     more(5),
		"with the network plugin":    more(7),
		"when it has pods and rules": func(t *testing.T, c *child) { c.await(t, "ready") },
	} {
		t.Run(name, func(t *testing.T) {
			c := spawn(t, "calico", nil)
			moment(t, c)
			require.NoError(t, c.cmd.Process.Kill())
			require.Error(t, c.cmd.Wait())
			eventually(t, "nothing is left", func() (bool, string) {
				after := look(t)
				after.files = before.files // of the subtest's own folder
				return assert.ObjectsAreEqual(before, after), fmt.Sprintf("before %+v\nafter  %+v", before, after)
			})
		})
	}
}

// TestAnUnprivilegedUserCanMakeACluster makes one as the user nobody, who has no right to anything, in a user namespace
// of its own. When the tests themselves are run by an ordinary user, every other test shows the same.
func TestAnUnprivilegedUserCanMakeACluster(t *testing.T) {
	if !sandbox.ReadFacts().NeedsUserNamespace() && hasFullIDMap(t) {
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: false}
		c := spawn(t, "calico", credential, envEngines+"="+readableEngines(t), "HOME=/nonexistent")
		line := c.await(t, "ready")
		assert.Contains(t, line, "x/b 0 "+nobody.Uid+" 1", "one user id is mapped, and it is nobody's")
		c.finish(t)
		return
	}
	c := spawn(t, "calico", nil)
	assert.Regexp(t, `x/b 0 \d+ 1$`, c.await(t, "ready"))
	c.finish(t)
}

func hasFullIDMap(t *testing.T) bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	fields := strings.Fields(string(ids))
	return len(fields) == 3 && fields[2] != "1"
}

// readableEngines shows the engines at a place that every user may read. The user's own cache may be closed to others.
func readableEngines(t *testing.T) string {
	t.Helper()
	engines, err := ensureEngines(t.Context(), "calico")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, engines.Close()) })
	// A folder that every Linux has; this sandbox alone sees the mount. Not in /run: the child's sandbox has its own.
	const dir = "/mnt"
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	for _, name := range []string{engine.Etcd, engine.Kubernetes, engine.Calico, engine.CNIPlugins} {
		target := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(target, 0o755))
		require.NoError(t, unix.Mount(engines.Dirs()[name], target, "", unix.MS_BIND, ""))
		t.Cleanup(func() { require.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) })
	}
	return dir
}
