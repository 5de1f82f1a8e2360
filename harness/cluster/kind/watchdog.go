package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
	"github.com/netproof/netproof/harness/cluster/kind/inherit"
)

// watchdogTask is the first message to a watchdog.
type watchdogTask struct {
	Engine string `json:"engine"`
	Name   string `json:"name"`
	// Files are temporary ones of the cluster.
	Files []string `json:"files"`
}

// watchdogWord is the second, and last: the cluster is closed, or kept. Without it the runner has died.
type watchdogWord struct {
	Release bool `json:"release"`
}

// watchdogHeld is the end of the pipe that the commands of the runner hold.
const watchdogHeld = 0

// Bounds of what a watchdog does after the death of its runner: for the commands that the runner left to end, and for
// the removal after each of several attempts; the engine may be starting again.
const (
	watchdogWait     = 2 * time.Minute
	watchdogAttempts = 3
	watchdogPause    = 5 * time.Second
)

// watchdogMain is the life of a watchdog.
func watchdogMain() int {
	in := json.NewDecoder(os.Stdin)
	var task watchdogTask
	if readTask(in, &task) != nil {
		return 0 // the runner died before it made anything
	}
	_ = os.Chdir("/") // so that no folder is kept busy; if it cannot be, nothing is lost
	inherit.Keep(watchdogHeld)
	var word watchdogWord
	if in.Decode(&word) == nil && word.Release {
		return 0
	}
	held := inherit.File(watchdogHeld, "commands")
	if err := cleanUp(task, held); err != nil {
		// Nobody listens any more; whoever looks for the reason looks here.
		path := filepath.Join(os.TempDir(), "netproof-watchdog-"+task.Name+".log")
		_ = os.WriteFile(path, fmt.Appendf(nil, "%s\nremove what is left with: netproof cluster delete %s\n", err, task.Name), 0o600)
		return 1
	}
	return 0
}

// cleanUp removes a cluster whose runner has died. While commands that the runner left are still at work, what they
// make is removed under their hands, so that they fail; once the last has ended nothing new appears, and all of it
// goes.
func cleanUp(task watchdogTask, held *os.File) error {
	ctx := context.Background()
	e := &engine.Engine{Name: task.Engine}
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		_, _ = io.Copy(io.Discard, held)
	}()
	removeUnder(ctx, e, task.Name, quiet, watchdogWait)
	var errs []error
	for range watchdogAttempts {
		err := remove(ctx, e, task.Name)
		if err == nil {
			errs = nil
			break
		}
		errs = append(errs, err)
		wait(ctx, watchdogPause)
	}
	for _, file := range task.Files {
		errs = append(errs, os.RemoveAll(file))
	}
	return errors.Join(errs...)
}

// removeUnder removes the containers of a cluster again and again until quiet is closed, for limit at most.
func removeUnder(ctx context.Context, e *engine.Engine, name string, quiet <-chan struct{}, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		_, _ = removeContainers(ctx, e, name) // the removal at the end tells of errors
		pause := time.NewTimer(200 * time.Millisecond)
		select {
		case <-quiet:
			pause.Stop()
			return
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// wait waits for a time, or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// watchdog is a running watchdog, as seen by the process that it watches.
type watchdog struct {
	life *os.File
}

// startWatchdog starts one for a cluster that is about to be made. The engine's commands hold a pipe from then on.
func startWatchdog(e *engine.Engine, task watchdogTask) (*watchdog, error) {
	heldR, heldW, err := pipe()
	if err != nil {
		return nil, err
	}
	defer heldR.Close()
	lifeR, lifeW, err := pipe()
	if err != nil {
		return nil, errors.Join(err, heldW.Close())
	}
	defer lifeR.Close()
	cmd := roleCommand(roleWatchdog, task.Name, heldR)
	cmd.Stdin = lifeR
	inherit.OwnSession(cmd)
	err = cmd.Start()
	if err == nil {
		go func() { _ = cmd.Wait() }() // it writes down what it could not do
		err = json.NewEncoder(lifeW).Encode(task)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start watchdog: %w", err), heldW.Close(), lifeW.Close())
	}
	e.Held = heldW
	return &watchdog{life: lifeW}, nil
}

// release ends the watchdog without consequences.
func (w *watchdog) release() error {
	err := json.NewEncoder(w.life).Encode(watchdogWord{Release: true})
	// The second is what Windows says.
	if err != nil && (strings.Contains(err.Error(), "broken pipe") || strings.Contains(err.Error(), "pipe is being closed")) {
		err = nil // it was killed; there is nothing more for it to do
	}
	return errors.Join(err, w.life.Close())
}

// abandon leaves the rest to the watchdog.
func (w *watchdog) abandon() error { return w.life.Close() }
