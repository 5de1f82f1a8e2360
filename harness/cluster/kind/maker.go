package kind

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kindcluster "sigs.k8s.io/kind/pkg/cluster"
	kindexec "sigs.k8s.io/kind/pkg/exec"
	"sigs.k8s.io/kind/pkg/log"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/kind/inherit"
)

// makerTask is the order to a maker.
type makerTask struct {
	Engine     string          `json:"engine"`
	Name       string          `json:"name"`
	Config     json.RawMessage `json:"config"`
	Kubeconfig string          `json:"kubeconfig"`
}

// makerEvent is what a maker tells: a line of kind's log, or how it ended.
type makerEvent struct {
	Log    string `json:"log,omitempty"`
	Done   bool   `json:"done,omitempty"`
	Error  string `json:"error,omitempty"`
	Output string `json:"output,omitempty"`
}

// Files of a maker that its children keep open: the one of all commands on behalf of the runner, and the one of its
// own.
const (
	makerHeld = iota
	makerOwn
)

// makerMain is the life of a maker. It ends when the process that started it does.
func makerMain() int {
	in := json.NewDecoder(os.Stdin)
	var task makerTask
	out := &events{encoder: json.NewEncoder(os.Stdout)}
	err := readTask(in, &task)
	if err == nil {
		err = inherit.PassOn(makerHeld, makerOwn)
	}
	if err == nil {
		err = os.Setenv(networkEnv[task.Engine], networkOf(task.Name))
	}
	if err != nil {
		out.send(makerEvent{Done: true, Error: err.Error()})
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // nothing more is said: this returns when the other end is gone
		exit(1)
	}()
	err = provider(task.Engine, makerLog{out}).Create(task.Name,
		kindcluster.CreateWithRawConfig(task.Config),
		kindcluster.CreateWithKubeconfigPath(task.Kubeconfig),
		kindcluster.CreateWithRetain(true), // logs are exported before the nodes go
		kindcluster.CreateWithDisplayUsage(false),
		kindcluster.CreateWithDisplaySalutation(false),
	)
	done := makerEvent{Done: true}
	if err != nil {
		done.Error = err.Error()
		if run := kindexec.RunErrorForError(err); run != nil {
			done.Output = string(run.Output)
		}
	}
	out.send(done)
	return 0
}

// provider is kind's for an engine.
func provider(name string, logger log.Logger) *kindcluster.Provider {
	runtime := kindcluster.ProviderWithDocker()
	if name == engine.Podman {
		runtime = kindcluster.ProviderWithPodman()
	}
	return kindcluster.NewProvider(runtime, kindcluster.ProviderWithLogger(logger))
}

// events writes a maker's events.
type events struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (e *events) send(event makerEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.encoder.Encode(event) // whoever does not listen any more has ended
}

// makerLog is kind's log as events.
type makerLog struct{ events *events }

var _ log.Logger = makerLog{}

func (l makerLog) Warn(message string) { l.events.send(makerEvent{Log: message}) }
func (l makerLog) Warnf(format string, args ...any) {
	l.events.send(makerEvent{Log: fmt.Sprintf(format, args...)})
}
func (l makerLog) Error(message string)              { l.Warn(message) }
func (l makerLog) Errorf(format string, args ...any) { l.Warnf(format, args...) }

func (l makerLog) V(level log.Level) log.InfoLogger {
	if level > 0 {
		return log.NoopInfoLogger{}
	}
	return makerInfo(l)
}

type makerInfo makerLog

func (l makerInfo) Info(message string)              { makerLog(l).Warn(message) }
func (l makerInfo) Infof(format string, args ...any) { makerLog(l).Warnf(format, args...) }
func (l makerInfo) Enabled() bool                    { return true }

// Phases of kind's work that others wait for, by what kind's log calls them.
const (
	phaseNodes        = "Preparing nodes"
	phaseControlPlane = "Starting control-plane"
)

// phaseOf reads a line of kind's log: a phase that begins ("•") or has ended well ("✓").
func phaseOf(line string) (phase string, ended bool) {
	line = strings.TrimSpace(line)
	rest, begun := strings.CutPrefix(line, "•")
	if !begun {
		if rest, ended = strings.CutPrefix(line, "✓"); !ended {
			return "", false
		}
	}
	rest = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "..."))
	// The pictures at the end are for people.
	return strings.TrimRightFunc(rest, func(r rune) bool { return r > 0x7f || r == ' ' }), ended
}

// plainPhases are kind's phases in the words of netproof's progress.
var plainPhases = map[string]string{
	phaseNodes:              "starting the nodes",
	phaseControlPlane:       "starting the control plane",
	"Joining worker nodes":  "joining the workers",
	"Installing CNI":        "installing the network plugin",
	"Writing configuration": "", "Installing StorageClass": "",
}

// maker is a running maker, as seen by the process that started it.
type maker struct {
	kill func()
	// phases are closed when that phase has ended, or the maker has.
	phases map[string]chan struct{}
	// ended is closed when the maker has ended; err is how.
	ended chan struct{}
	err   error
	// quiet is closed when the last command that the maker started has ended.
	quiet chan struct{}
	// said is the last line of kind's log.
	said atomic.Value
}

// makerWait bounds how long kind may take. Pulling the image is not part of it.
const makerWait = 8 * time.Minute

// startMaker starts kind.
func startMaker(e *engine.Engine, task makerTask, progress func(string)) (*maker, error) {
	ownR, ownW, err := pipe()
	if err != nil {
		return nil, err
	}
	m := &maker{ended: make(chan struct{}), quiet: make(chan struct{}), phases: map[string]chan struct{}{}}
	for _, phase := range []string{phaseNodes, phaseControlPlane} {
		m.phases[phase] = make(chan struct{})
	}
	cmd := roleCommand(roleMaker, task.Name, e.Held, ownW)
	inherit.OwnSession(cmd)
	var crash strings.Builder
	cmd.Stderr = &crash
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, ownR.Close(), ownW.Close())
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, ownR.Close(), ownW.Close())
	}
	err = cmd.Start()
	_ = ownW.Close() // the maker has its own
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start maker: %w", err), ownR.Close())
	}
	m.kill = func() { _ = cmd.Process.Kill() } // it may have ended
	go func() {
		defer close(m.quiet)
		defer ownR.Close()
		_, _ = io.Copy(io.Discard, ownR)
	}()
	go func() {
		defer close(m.ended)
		err := json.NewEncoder(stdin).Encode(task)
		done := m.listen(stdout, progress)
		waitErr := cmd.Wait()
		_ = stdin.Close()
		switch {
		case done == nil:
			m.err = fmt.Errorf("kind was ended: %w: %s", errors.Join(err, waitErr), strings.TrimSpace(crash.String()))
		case done.Error != "":
			m.err = &kindError{message: done.Error, output: done.Output}
		}
	}()
	return m, nil
}

// listen takes in what the maker tells, and returns its last word, if there was one.
func (m *maker) listen(r io.Reader, progress func(string)) *makerEvent {
	open := map[string]bool{phaseNodes: true, phaseControlPlane: true}
	finish := func(phase string) {
		if open[phase] {
			open[phase] = false
			close(m.phases[phase])
		}
	}
	defer func() {
		for phase := range open {
			finish(phase)
		}
	}()
	for in := json.NewDecoder(bufio.NewReader(r)); ; {
		var e makerEvent
		if in.Decode(&e) != nil {
			return nil
		}
		if e.Done {
			return &e
		}
		if line := strings.TrimSpace(e.Log); line != "" {
			m.said.Store(line)
		}
		phase, ended := phaseOf(e.Log)
		if ended {
			finish(phase)
		} else if text := plainPhases[phase]; text != "" {
			progress(text)
		}
	}
}

// wait waits for the end of a phase; an error is that of ctx or of the maker.
func (m *maker) wait(ctx context.Context, phase string) error {
	select {
	case <-m.phases[phase]:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.ended:
		return m.err
	default:
		return nil
	}
}

// done waits until kind has made the cluster.
func (m *maker) done(ctx context.Context) error {
	limit := time.NewTimer(makerWait)
	defer limit.Stop()
	select {
	case <-m.ended:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return fmt.Errorf("kind has not made the cluster within %s; the last it said: %s", makerWait, m.said.Load())
	}
}

// kindError is what kind failed with.
type kindError struct {
	message string
	// output is what the command behind it wrote.
	output string
}

func (e *kindError) Error() string {
	text := "kind: " + strings.TrimSpace(e.message)
	if e.output != "" {
		lines := strings.Split(strings.TrimSpace(e.output), "\n")
		text += "\n" + strings.Join(lines[max(0, len(lines)-15):], "\n")
	}
	return text
}
