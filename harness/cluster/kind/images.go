package kind

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/image"
)

// ensureNodeImage makes sure that the image is on the engine's machine, and pulls it if not. kind would do so as well,
// but nobody could interrupt it, and it tries five times before it says why.
func ensureNodeImage(ctx context.Context, e *engine.Engine, ref string, progress func(string)) error {
	_, err := e.Output(ctx, "image", "inspect", "--format", "{{.Id}}", ref)
	if err == nil {
		return nil
	}
	if !engine.IsGone(err) {
		return fmt.Errorf("look for image %s: %w", ref, engine.Explain(e.Name, err))
	}
	progress("pulling " + ref)
	if _, err := e.Output(ctx, "pull", "-q", ref); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("pull %s: %w", ref, context.Cause(ctx))
		}
		return engine.ExplainPull(e.Name, ref, err)
	}
	return nil
}

// canonical gives a reference the form in which nodes list it: docker.io/calico/node:v3 for calico/node:v3. What is no
// reference stays as it is.
func canonical(ref string) string {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return ref
	}
	return strings.Replace(parsed.Name(), "index.docker.io/", "docker.io/", 1)
}

// criImages has the fields of crictl images -o json that are read.
type criImages struct {
	Images []struct {
		RepoTags    []string `json:"repoTags"`
		RepoDigests []string `json:"repoDigests"`
	} `json:"images"`
}

// parseImages gives all names of images in the output of crictl images -o json.
func parseImages(text []byte) (map[string]bool, error) {
	var list criImages
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read images of node: %w", err)
	}
	names := map[string]bool{}
	for _, i := range list.Images {
		for _, n := range append(i.RepoTags, i.RepoDigests...) {
			names[canonical(n)] = true
		}
	}
	return names, nil
}

// runtimeWait bounds the start of the container runtime in a node. kind goes on before that is up; on a busy machine it
// takes a minute.
const runtimeWait = 4 * time.Minute

// listImages prints the images of a node as soon as its container runtime answers. The waiting is done in the node: to
// ask from outside again and again would take more of a starting machine's time than it has to spare.
const listImages = `i=0; until [ -S /run/containerd/containerd.sock ] && crictl images -o json 2>/dev/null; do
	i=$((i+1)); [ $i -lt 800 ] || exec crictl images -o json; sleep 0.3
done`

// nodeImages lists the images in a node.
func nodeImages(ctx context.Context, e *engine.Engine, node string) (map[string]bool, error) {
	limit, cancel := context.WithTimeoutCause(ctx, runtimeWait, fmt.Errorf("no answer within %s", runtimeWait))
	defer cancel()
	out, err := e.Output(limit, "exec", node, "sh", "-c", listImages)
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime of node %s: %w", node, err)
	}
	return parseImages([]byte(out))
}

// loading is what goes into nodes.
type loading struct {
	engine *engine.Engine
	// plugin are the images of the network plugin, which every node needs.
	plugin []string
	// agent is the image of probe pods, for the nodes that take pods.
	agent    v1.Image
	agentRef string

	// have are the images of nodes, by name of the node.
	mu   sync.Mutex
	have map[string]map[string]bool
}

// images lists the images in a node, as they were when it was first asked.
func (l *loading) images(ctx context.Context, node string) (map[string]bool, error) {
	l.mu.Lock()
	known := l.have[node]
	l.mu.Unlock()
	if known != nil {
		return known, nil
	}
	known, err := nodeImages(ctx, l.engine, node)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have == nil {
		l.have = map[string]map[string]bool{}
	}
	l.have[node] = known
	return known, nil
}

// loadPlugin puts those images of the network plugin into the nodes that the engine has and a node does not. What
// neither has will be pulled by the node.
func (l *loading) loadPlugin(ctx context.Context, all []string) error {
	missing := make([][]string, len(all))
	group, gctx := errgroup.WithContext(ctx)
	for i, n := range all {
		group.Go(func() error {
			have, err := l.images(gctx, n)
			for _, ref := range l.plugin {
				if !have[canonical(ref)] {
					missing[i] = append(missing[i], ref)
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var local []string
	for _, ref := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(missing...)))) {
		if _, err := l.engine.Output(ctx, "image", "inspect", "--format", "{{.Id}}", ref); err == nil {
			local = append(local, ref)
		}
	}
	var targets []string
	for i, n := range all {
		if slices.ContainsFunc(missing[i], func(ref string) bool { return slices.Contains(local, ref) }) {
			targets = append(targets, n)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	if err := l.copyImages(ctx, local, targets); err != nil {
		return fmt.Errorf("load images of the network plugin: %w", err)
	}
	return nil
}

// copyImages saves images of the engine once, and imports them into all of these nodes meanwhile.
func (l *loading) copyImages(ctx context.Context, images, targets []string) error {
	group, gctx := errgroup.WithContext(ctx)
	writers := make([]io.Writer, len(targets))
	pipes := make([]*io.PipeWriter, len(targets))
	for i, n := range targets {
		r, w := io.Pipe()
		writers[i], pipes[i] = w, w
		group.Go(func() error {
			err := importArchive(gctx, l.engine, n, r)
			r.CloseWithError(errors.Join(io.ErrClosedPipe, err)) // who writes is not to wait for this node
			return err
		})
	}
	group.Go(func() error {
		var said bytes.Buffer
		cmd := l.engine.Command(gctx, append([]string{"save"}, images...)...)
		cmd.Stdout, cmd.Stderr = io.MultiWriter(writers...), &limited{b: &said}
		cmd.WaitDelay = 0 // its last words may have to wait for a slow node
		err := cmd.Run()
		if err != nil && said.Len() > 0 {
			err = &engine.Error{Program: l.engine.Name, Args: cmd.Args[1:], Output: strings.TrimSpace(said.String()), Err: err}
		}
		for _, w := range pipes {
			w.CloseWithError(err) // nil is the end of the file
		}
		return engine.Explain(l.engine.Name, err)
	})
	return group.Wait()
}

// loadAgent puts the image of probe pods into the nodes that lack it.
func (l *loading) loadAgent(ctx context.Context, workers []string) error {
	group, gctx := errgroup.WithContext(ctx)
	for _, n := range workers {
		group.Go(func() error {
			have, err := l.images(gctx, n)
			if err != nil || have[canonical(l.agentRef)] {
				return err
			}
			r, w := io.Pipe()
			defer r.Close()
			go func() { w.CloseWithError(image.Write(w, l.agent, l.agentRef)) }()
			return importArchive(gctx, l.engine, n, r)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("load image %s: %w", l.agentRef, err)
	}
	return nil
}

// importInNode imports an archive as kind's own loader does, in one call instead of two: the snapshotter is the one
// that the node's entrypoint has written into the configuration.
const importInNode = `s=$(sed -n 's/^ *snapshotter = "\(.*\)"/\1/p' /etc/containerd/config.toml | head -n 1)
exec ctr --namespace=k8s.io images import --all-platforms --digests --snapshotter="${s:-overlayfs}" -`

// importArchive imports an archive into a node.
func importArchive(ctx context.Context, e *engine.Engine, node string, archive io.Reader) error {
	var said bytes.Buffer
	cmd := e.Command(ctx, "exec", "--privileged", "-i", node, "sh", "-c", importInNode)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = archive, &limited{b: &said}, &limited{b: &said}
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		err = &engine.Error{Program: e.Name, Args: []string{"exec", node, "ctr", "images", "import"}, Output: strings.TrimSpace(said.String()), Err: err}
		return fmt.Errorf("import into node %s: %w", node, engine.Explain(e.Name, err))
	}
	return nil
}
