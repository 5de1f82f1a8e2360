package engine

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Stage is what happens to an engine at the moment.
type Stage int

// The stages of a build, in their order. An engine that is in the cache goes to Ready at once.
const (
	// Waiting: another run is building this engine, or this build waits for its turn.
	Waiting Stage = iota
	// Downloading: modules come from the proxy or from the module cache; Done of about Total.
	Downloading
	// Compiling: packages are compiled; Done of Total. Packages that Go's build cache has are not counted.
	Compiling
	// Linking: all packages are compiled, the executables are being put together.
	Linking
	// Ready: complete, in Path.
	Ready
	// Damaged: what the cache holds is not what was built, as Detail says. It is built again.
	Damaged
)

// String gives the stage as a verb form for people.
func (s Stage) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Downloading:
		return "downloading"
	case Compiling:
		return "compiling"
	case Linking:
		return "linking"
	case Ready:
		return "ready"
	case Damaged:
		return "damaged"
	}
	return fmt.Sprintf("Stage(%d)", int(s))
}

// Event tells how far an engine is.
type Event struct {
	Engine  string
	Version string
	Stage   Stage
	// Done and Total count modules while downloading and packages while compiling. Total is 0 where it is not known.
	Done, Total int
	// Detail names what was just finished, or what is waited for.
	Detail string
	// Elapsed is the time since work on this engine began.
	Elapsed time.Duration
	// Cached says, with Ready, that nothing had to be built.
	Cached bool
	// Path is the folder of the engine, with Ready.
	Path string
}

// plainInterval is how often an engine may say something on a writer that is not a terminal, where each line stays.
const plainInterval = 10 * time.Second

// NewProgress gives a function for [Options.Progress] that writes to w for people: one line that is rewritten when w is
// a terminal, and otherwise plain lines, one at each change of stage and one every ten seconds. Engines that were in
// the cache are not mentioned.
func NewProgress(w io.Writer, terminal bool) func(Event) {
	p := &progress{w: w, terminal: terminal, now: time.Now, last: map[string]time.Time{}, state: map[string]Event{}}
	return p.show
}

type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	order    []string
	state    map[string]Event
	last     map[string]time.Time
	drawn    time.Time
	begun    bool
}

func (p *progress) show(e Event) {
	before, known := p.state[e.Engine]
	if e.Stage == Ready && e.Cached && !known {
		return
	}
	if !known {
		p.order = append(p.order, e.Engine)
	}
	p.state[e.Engine] = e
	if !p.begun {
		p.begun = true
		fmt.Fprint(p.w, "engines: building the upstream programs, once for this machine; this takes some minutes\n")
	}
	changed := !known || before.Stage != e.Stage
	if p.terminal {
		p.draw(e, changed)
		return
	}
	if now := p.now(); changed || now.Sub(p.last[e.Engine]) >= plainInterval {
		p.last[e.Engine] = now
		fmt.Fprintf(p.w, "engines: %s\n", describe(e))
	}
}

// redrawInterval keeps a terminal readable and the cost of writing to it small.
const redrawInterval = 100 * time.Millisecond

// draw rewrites the status line; an engine that got ready leaves a line of its own above it.
func (p *progress) draw(e Event, changed bool) {
	now := p.now()
	if !changed && now.Sub(p.drawn) < redrawInterval {
		return
	}
	p.drawn = now
	var b strings.Builder
	b.WriteString("\r\x1b[K")
	if e.Stage == Ready || e.Stage == Damaged {
		fmt.Fprintf(&b, "engines: %s\n", describe(e))
	}
	var parts []string
	for _, name := range p.order {
		if s := p.state[name]; s.Stage != Ready {
			parts = append(parts, brief(s))
		}
	}
	if len(parts) > 0 {
		b.WriteString("engines: " + strings.Join(parts, " | "))
	}
	fmt.Fprint(p.w, b.String())
}

// describe says an event in a line.
func describe(e Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Engine, e.Version)
	switch e.Stage {
	case Waiting:
		b.WriteString("waiting for " + e.Detail)
	case Downloading:
		// Some modules of a build list serve only other platforms or tests and are never fetched.
		fmt.Fprintf(&b, "downloading modules, %s", count(e))
		if e.Total > 0 {
			b.WriteString(" at most")
		}
	case Compiling:
		fmt.Fprintf(&b, "compiling, %s", count(e))
		if e.Total > 0 {
			fmt.Fprintf(&b, " packages (%d%%)", 100*e.Done/e.Total)
		} else {
			b.WriteString(" packages")
		}
	case Linking:
		b.WriteString("linking " + e.Detail)
	case Ready:
		b.WriteString("ready")
	case Damaged:
		b.WriteString(e.Detail + ": it is built again")
	}
	if e.Elapsed >= time.Second {
		fmt.Fprintf(&b, ", %s", e.Elapsed.Round(time.Second))
	}
	return b.String()
}

// brief says an event in a few words, to stand beside others on one line.
func brief(e Event) string {
	text := e.Engine + " " + e.Stage.String()
	if e.Stage == Downloading || e.Stage == Compiling {
		text += " " + count(e)
	}
	if e.Elapsed >= time.Second {
		text += " " + e.Elapsed.Round(time.Second).String()
	}
	return text
}

func count(e Event) string {
	if e.Total == 0 {
		return fmt.Sprint(e.Done)
	}
	return fmt.Sprintf("%d of %d", e.Done, e.Total)
}
