package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/netproof/netproof/probes"
)

// Version of the protocol. Both sides must be of the same.
const Version = 1

// protocolName marks the first line of a stream.
const protocolName = "probes"

const (
	// maxLine is the length of the longest line, in bytes.
	maxLine = 8 << 20
	// maxBatch and maxNonces keep calls well below that: longer ones are sent as several.
	maxBatch  = 2000
	maxNonces = 10000
	// maxCalls is the number of calls that may run at the same time on one stream.
	maxCalls = 4096
)

var (
	// ErrStream says that the stream broke, or something came that is not of the protocol. What was in flight is
	// unknown.
	ErrStream = errors.New("probe stream broken")
	// ErrVersion says that the other side speaks another version of the protocol.
	ErrVersion = errors.New("probe stream of another version")
	// ErrRefused says that the agent does not work for this client.
	ErrRefused = errors.New("the agent refused")
	// errLong: a line is longer than any that the protocol has.
	errLong = errors.New("line too long")
)

// hello is the first line in either direction. Fields that are not known are allowed in it, so that versions can
// tell each other apart.
type hello struct {
	Protocol string           `json:"netproof"`
	Version  int              `json:"version"`
	Identity *probes.Identity `json:"identity,omitempty"`
	// Key is what the client shows to a [Guard].
	Key []byte `json:"key,omitempty"`
	// Boot is the agent's; see [Guard].
	Boot string `json:"boot,omitempty"`
	// Refused is why the agent does not work for this client; then there is no identity.
	Refused string `json:"refused,omitempty"`
}

// question is a line of the client.
type question struct {
	Call     int64            `json:"call,omitempty"`
	Probe    []probes.Request `json:"probe,omitempty"`
	Records  []probes.Nonce   `json:"records,omitempty"`
	Liveness bool             `json:"liveness,omitempty"`
	Forget   bool             `json:"forget,omitempty"`
	Targets  []netip.Addr     `json:"targets,omitempty"`
	Ping     bool             `json:"ping,omitempty"`
	// Cancel ends the call of this number.
	Cancel int64 `json:"cancel,omitempty"`
}

// reply is a line of the agent: a part of a call's result, or the end of it.
type reply struct {
	Call      int64                 `json:"call"`
	Responses []probes.Response     `json:"responses,omitempty"`
	Records   []probes.Record       `json:"records,omitempty"`
	Servers   []probes.ServerStatus `json:"servers,omitempty"`
	End       *end                  `json:"end,omitempty"`
}

// size is the number of results in the line.
func (r *reply) size() int { return len(r.Responses) + len(r.Records) + len(r.Servers) }

// end says how a call ended.
type end struct {
	// Count is the number of results that were sent.
	Count int `json:"count"`
	// Error is why the call failed, if it did.
	Error string `json:"error,omitempty"`
	// Forgotten: the error is [probes.ErrForgotten].
	Forgotten bool `json:"forgotten,omitempty"`
}

// lineReader reads whole lines.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line. A stream that ends between lines gives io.EOF, one that ends within a line
// io.ErrUnexpectedEOF.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errLong
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, fmt.Errorf("line ends after %d bytes: %w", len(line), io.ErrUnexpectedEOF)
		default:
			return nil, err
		}
	}
}

// decode reads a line that must hold exactly one JSON value of the fields of into.
func decode(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode %.100q: %w", line, err)
	}
	if rest := bytes.TrimSpace(line[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("decode %.100q: %d bytes after its end", line, len(rest))
	}
	return nil
}

// readHello reads the other side's first line.
func readHello(l *lineReader) (hello, error) {
	line, err := l.next()
	if err != nil {
		return hello{}, fmt.Errorf("read hello: %w", err)
	}
	var h hello
	if err := json.Unmarshal(line, &h); err != nil {
		return hello{}, fmt.Errorf("decode hello %.100q: %w", line, err)
	}
	if h.Protocol != protocolName {
		return hello{}, fmt.Errorf("hello %.100q is not of this protocol", line)
	}
	if h.Version != Version {
		return hello{}, fmt.Errorf("%w: %d there, %d here", ErrVersion, h.Version, Version)
	}
	return h, nil
}

// lineWriter writes lines from a goroutine of its own, so that nobody waits for a stream that does not move.
type lineWriter struct {
	w io.Writer
	// linger is how long a line waits for others to be written with it.
	linger time.Duration

	mu    sync.Mutex
	queue []any
	// due says that the queue is to be written, timed that it soon will be.
	due, timed bool
	// more says that the queue is not empty, or that the writer is to end.
	more   chan struct{}
	ending bool
	// done is closed when the goroutine has ended; err is why, before that.
	done chan struct{}
	err  error
}

// remoteLinger suits a stream through an exec: what is written goes through five programs, and each wakes up for
// it, and hundreds of results come at the same moment. A round trip takes longer than this anyway.
const remoteLinger = 2 * time.Millisecond

// A batch of manyProbes or more has answers for longer than that. They are written together as long as none waits for
// longer than gather.
const (
	manyProbes = 16
	gather     = 50 * time.Millisecond
)

func newLineWriter(w io.Writer, linger time.Duration) *lineWriter {
	l := &lineWriter{w: w, linger: linger, more: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// send queues a line.
func (l *lineWriter) send(v any) { l.sendWithin(v, 0) }

// sendWithin queues a line that may wait for others, but not for longer than this.
func (l *lineWriter) sendWithin(v any, patience time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.joins(v) {
		l.queue = append(l.queue, v)
	}
	switch {
	case patience == 0:
		l.due = true
		l.signal()
	case !l.timed:
		l.timed = true
		time.AfterFunc(patience, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.timed, l.due = false, true
			l.signal()
		})
	}
}

// joins puts results into the last line if they belong to the same call.
func (l *lineWriter) joins(v any) bool {
	r, ok := v.(*reply)
	if !ok || r.End != nil || len(l.queue) == 0 {
		return false
	}
	last, ok := l.queue[len(l.queue)-1].(*reply)
	if !ok || last.Call != r.Call || last.End != nil || last.size()+r.size() > 256 {
		return false
	}
	last.Responses = append(last.Responses, r.Responses...)
	last.Records = append(last.Records, r.Records...)
	last.Servers = append(last.Servers, r.Servers...)
	return true
}

func (l *lineWriter) signal() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// end makes the writer end when the queue is written.
func (l *lineWriter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	l.signal()
}

func (l *lineWriter) run() {
	defer close(l.done)
	var pending bytes.Buffer
	for {
		l.mu.Lock()
		var queue []any
		ending := l.ending
		if l.due || ending {
			queue, l.queue, l.due = l.queue, nil, false
		}
		l.mu.Unlock()
		if len(queue) == 0 {
			if ending {
				return
			}
			<-l.more
			if l.linger > 0 {
				<-time.After(l.linger)
			}
			continue
		}
		pending.Reset()
		for _, v := range queue {
			line, err := json.Marshal(v)
			if err != nil {
				l.err = err
				return
			}
			pending.Write(line)
			pending.WriteByte('\n')
		}
		if _, err := l.w.Write(pending.Bytes()); err != nil {
			l.err = err
			return
		}
	}
}
