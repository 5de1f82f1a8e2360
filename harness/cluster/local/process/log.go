//go:build linux

package process

import (
	"bytes"
	"os"
	"strings"
	"sync"
)

// maxLog bounds the log of one process, in bytes: the file holds at most this much, and one older file as much again.
const maxLog = 4 << 20

// maxTail is how much of the end of a log is kept in memory, in bytes.
const maxTail = 32 << 10

// logFile receives the output of a process. The newest part is in path, the part before it in path.1.
type logFile struct {
	mu      sync.Mutex
	path    string
	file    *os.File
	written int
	tail    []byte
}

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, file: f}, nil
}

// Write never fails: a full disk must not end the process whose output this is.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if len(l.tail) > 2*maxTail {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-maxTail:]...)
	}
	if l.file == nil {
		return len(p), nil
	}
	if l.written+len(p) > maxLog {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(p)
		l.written += n
	}
	return len(p), nil
}

func (l *logFile) rotate() {
	_ = l.file.Close()
	l.file = nil
	l.written = 0
	if os.Rename(l.path, l.path+".1") != nil {
		return
	}
	if f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644); err == nil {
		l.file = f
	}
}

// Tail returns the last lines.
func (l *logFile) Tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(string(bytes.TrimRight(l.tail, "\n")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}
