package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/netproof/netproof/probes/stream"
)

// containerName is the one container of a probe pod.
const containerName = "probe"

// execDial connects to the agent of a pod by an exec of its bridge. It goes through the API server and the kubelet, so
// that the policy under test cannot cut it.
func execDial(cfg *rest.Config, client kubernetes.Interface, pod *corev1.Pod) stream.Dial {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{
				Container: containerName, Command: []string{AgentPath, "agent", "connect"}, Stdin: true, Stdout: true, Stderr: true,
			}, scheme.ParameterCodec).URL()
		// Servers before 1.31, and proxies that do not pass WebSockets on, still have SPDY.
		modern, err := remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, url.String())
		if err != nil {
			return nil, fmt.Errorf("exec in pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		old, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, url)
		if err != nil {
			return nil, fmt.Errorf("exec in pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		executor, err := remotecommand.NewFallbackExecutor(modern, old, func(err error) bool {
			return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
		})
		if err != nil {
			return nil, fmt.Errorf("exec in pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		return startExec(ctx, executor), nil
	}
}

// execution is an exec under way: its standard input and output.
type execution struct {
	io.Reader
	io.Writer
	cancel context.CancelFunc
	ended  chan struct{}
}

func startExec(ctx context.Context, executor remotecommand.Executor) *execution {
	ctx, cancel := context.WithCancel(ctx)
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	e := &execution{Reader: outRead, Writer: inWrite, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		said := &tail{}
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: inRead, Stdout: outWrite, Stderr: said})
		if err == nil {
			err = errors.New("the exec ended")
		}
		if text := said.String(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		outWrite.CloseWithError(err)
		inRead.CloseWithError(err)
	}()
	return e
}

// Close ends the exec.
func (e *execution) Close() error {
	e.cancel()
	return nil
}

// tail keeps the end of what a program says on standard error.
type tail struct {
	mu   sync.Mutex
	last []byte
}

const tailLen = 512

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	if len(t.last) > tailLen {
		t.last = bytes.Clone(t.last[len(t.last)-tailLen:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.last))
}
