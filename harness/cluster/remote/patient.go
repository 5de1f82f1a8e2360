package remote

import (
	"errors"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// restartPatience is how long an API server that is being started again is waited for.
	restartPatience = 40 * time.Second
	restartPoll     = 250 * time.Millisecond
)

// outage is what the clients of one configuration know of their API server.
type outage struct {
	// seen is when it last refused or broke a connection, in nanoseconds since 1970.
	seen atomic.Int64
}

// patiently sends a request again that no server took: an API server which is being started again does not listen for
// some seconds, and then forbids everybody everything until it has read the rights that there are. What a run made is
// to be removed all the same. A request that a server may have acted on is never sent twice.
func (o *outage) patiently(next http.RoundTripper) http.RoundTripper {
	return &patient{outage: o, next: next}
}

type patient struct {
	outage *outage
	next   http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	for {
		resp, err := p.next.RoundTrip(r)
		if err != nil && r.Context().Err() == nil {
			p.outage.seen.Store(time.Now().UnixNano())
		}
		early := err == nil && resp.StatusCode == http.StatusForbidden && time.Since(time.Unix(0, p.outage.seen.Load())) < restartPatience
		if !early && !isRefused(err) || time.Since(began) > restartPatience {
			return resp, err
		}
		pause := time.NewTimer(restartPoll)
		select {
		case <-pause.C:
		case <-r.Context().Done():
			pause.Stop()
			return resp, err
		}
		if r.Body != nil && r.Body != http.NoBody {
			if r.GetBody == nil {
				return resp, err
			}
			body, bodyErr := r.GetBody()
			if bodyErr != nil {
				return resp, err
			}
			again := r.Clone(r.Context())
			again.Body = body
			r = again
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
	}
}

// WrappedRoundTripper lets client-go look through to the transport below.
func (p *patient) WrappedRoundTripper() http.RoundTripper { return p.next }

// isRefused tells whether nobody listens where a connection was wanted.
func isRefused(err error) bool {
	// WSAECONNREFUSED: on Windows syscall.ECONNREFUSED is a number that Go made up, and that no call returns.
	const windowsRefused = syscall.Errno(10061)
	return errors.Is(err, syscall.ECONNREFUSED) || runtime.GOOS == "windows" && errors.Is(err, windowsRefused)
}
