package remote

import (
	"errors"
	"io"
	"net/http"
	"syscall"
	"time"
)

const (
	// restartPatience is how long an API server that is being started again is waited for.
	restartPatience = 40 * time.Second
	restartPoll     = 250 * time.Millisecond
)

// patiently sends a request again that no server took: an API server which is being started again does not listen for some seconds,
// and what a run made is to be removed all the same. A request that a server may have seen is never sent twice.
func patiently(next http.RoundTripper) http.RoundTripper { return &patient{next: next} }

type patient struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	for {
		resp, err := p.next.RoundTrip(r)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > restartPatience {
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
			var body io.ReadCloser
			if body, err = r.GetBody(); err != nil {
				return nil, err
			}
			again := r.Clone(r.Context())
			again.Body = body
			r = again
		}
	}
}

// WrappedRoundTripper lets client-go look through to the transport below.
func (p *patient) WrappedRoundTripper() http.RoundTripper { return p.next }
