package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
	"github.com/netproof/netproof/harness/report"
	"github.com/netproof/netproof/harness/words"
)

// Options of a progress display.
type Options struct {
	// Terminal rewrites one line; otherwise every line stays.
	Terminal bool
	// Columns is the width of the terminal, 0 if it is not known.
	Columns int
	// Verbose adds a line per step that stays.
	Verbose bool
	// Quiet shows nothing.
	Quiet bool
	// ASCII uses no other characters.
	ASCII bool
}

// Progress is a display. Its methods may be called from several goroutines, also after Close, when they do nothing.
type Progress struct {
	w    io.Writer
	opts Options

	mu     sync.Mutex
	closed bool
	// lanes are the scenarios under way, in the order in which they began.
	lanes []lane
	note  string
	// since is when the note began.
	since time.Time
	drawn string
	frame int
	stop  chan struct{}
	done  chan struct{}
}

// lane is a scenario under way.
type lane struct {
	// scenario is its name, and place its number among all, such as [1/2].
	scenario, place string
	// step says where it is, such as "step 1 of 2, isolated".
	step string
}

// redraw is how often the line on a terminal is written anew, for the clock in it.
const redraw = 200 * time.Millisecond

// New begins a display on w. Close ends it.
func New(w io.Writer, opts Options) *Progress {
	p := &Progress{w: w, opts: opts, stop: make(chan struct{}), done: make(chan struct{})}
	if opts.Columns <= 0 {
		p.opts.Columns = 80
	}
	if opts.Quiet || !opts.Terminal {
		close(p.done)
		return p
	}
	go p.tick()
	return p
}

func (p *Progress) tick() {
	defer close(p.done)
	ticker := time.NewTicker(redraw)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.frame++
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Close takes the line away. It may be called more than once.
func (p *Progress) Close() {
	p.mu.Lock()
	if !p.closed {
		p.clear()
		close(p.stop)
	}
	p.closed = true
	p.mu.Unlock()
	<-p.done
}

// RunStarted tells what the run is made on.
func (p *Progress) RunStarted(run model.Run) {
	c := run.Cluster
	p.line(fmt.Sprintf("cluster ready: %s %s, Kubernetes %s, %s", c.CNI.Name, c.CNI.Version, c.Kubernetes, words.Count(c.Nodes, "node", "nodes")))
}

// Note says what is being waited for.
func (p *Progress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.opts.Quiet || text == p.note {
		return
	}
	p.note, p.since = text, time.Now()
	if p.opts.Terminal {
		p.draw()
		return
	}
	if len(p.lanes) > 1 {
		p.write(text) // it may be about any of them
		return
	}
	p.write(p.where() + text)
}

// ScenarioStarted begins a scenario; index counts from 0.
func (p *Progress) ScenarioStarted(name string, index, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lanes = append(p.lanes, lane{scenario: name, place: fmt.Sprintf("[%d/%d]", index+1, total)})
	p.note = ""
	p.draw()
}

// StepStarted begins a step; index counts from 0.
func (p *Progress) StepStarted(scenario, step string, index, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.laneOf(scenario); i >= 0 {
		p.lanes[i].step = fmt.Sprintf("step %d of %d, %s", index+1, total, step)
	}
	p.note, p.since = "", time.Now()
	p.draw()
}

// laneOf is the index of the lane that a scenario is on, -1 if it is on none.
func (p *Progress) laneOf(scenario string) int {
	return slices.IndexFunc(p.lanes, func(l lane) bool { return l.scenario == scenario })
}

// Detail tells what a verbose display shows.
func (p *Progress) Detail(text string) {
	if p.opts.Verbose {
		p.line(text)
	}
}

// StepDone tells of a step, when the display is verbose.
func (p *Progress) StepDone(scenario string, step model.Step) {
	if p.opts.Verbose {
		text := fmt.Sprintf("%s / %s: %s", scenario, step.Name, words.Count(len(step.Cells), "cell", "cells"))
		if timing := report.Timing(step); timing != "" {
			text += ", " + timing
		}
		p.line(text)
	}
}

// ScenarioDone tells of a scenario. On a terminal, where the table comes soon, only of those that did not pass.
func (p *Progress) ScenarioDone(s model.Scenario) {
	name := s.Name
	p.mu.Lock()
	if i := p.laneOf(s.Name); i >= 0 {
		name = p.lanes[i].place + " " + s.Name
		p.lanes = slices.Delete(p.lanes, i, i+1)
	}
	p.note = ""
	p.mu.Unlock()
	if p.opts.Terminal && !p.opts.Verbose && s.Result == model.Passed {
		return
	}
	n := 0
	for _, step := range s.Steps {
		n += len(step.Cells)
	}
	p.line(fmt.Sprintf("%s: %s, %s, %.1f s", name, s.Result, words.Count(n, "cell", "cells"), float64(s.DurationMs)/1000))
}

// Found tells of a finding about the whole run.
func (p *Progress) Found(f model.Finding) { p.line(fmt.Sprintf("%s: %s", f.Kind, f.Message)) }

// line writes a line that stays.
func (p *Progress) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.opts.Quiet {
		return
	}
	p.clear()
	p.write(text)
	p.draw()
}

func (p *Progress) write(text string) {
	// A display that cannot be shown is no reason to end a run.
	_, _ = fmt.Fprintln(p.w, plain.Text(text))
}

// where names what is under way: scenario and step, or the scenarios of all lanes.
func (p *Progress) where() string {
	switch {
	case len(p.lanes) == 0:
		return ""
	case len(p.lanes) > 1:
		names := make([]string, len(p.lanes))
		for i, l := range p.lanes {
			names[i] = l.scenario
		}
		return p.lanes[len(p.lanes)-1].place + " " + strings.Join(names, ", ") + ": "
	case p.lanes[0].step == "":
		return p.lanes[0].place + " " + p.lanes[0].scenario + ": "
	default:
		return p.lanes[0].place + " " + p.lanes[0].scenario + ", " + p.lanes[0].step + ": "
	}
}

// draw writes the line of a terminal, if it has changed.
func (p *Progress) draw() {
	if p.closed || p.opts.Quiet || !p.opts.Terminal {
		return
	}
	text := strings.TrimSuffix(p.where()+p.note, ": ")
	if text == "" {
		p.clear()
		return
	}
	if waited := time.Since(p.since); !p.since.IsZero() && waited >= time.Second {
		text += fmt.Sprintf(" (%d s)", int(waited.Seconds()))
	}
	line := p.spinner() + " " + cut(plain.Text(text), p.opts.Columns-3, p.opts.ASCII)
	if line == p.drawn {
		return
	}
	p.drawn = line
	_, _ = fmt.Fprint(p.w, "\r\x1b[K"+line)
}

func (p *Progress) spinner() string {
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	if p.opts.ASCII {
		frames = []rune(`|/-\`)
	}
	return string(frames[p.frame%len(frames)])
}

func (p *Progress) clear() {
	if p.drawn != "" {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = ""
	}
}

// cut shortens text to a number of characters, so that the line never wraps: a wrapped one could not be rewritten.
func cut(text string, to int, ascii bool) string {
	runes := []rune(text)
	if len(runes) <= to {
		return text
	}
	end := "…"
	if ascii {
		end = "..."
	}
	return string(runes[:max(0, to-len([]rune(end)))]) + end
}
