package remote

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeServer answers with one after the other: a status, or an error; the last one stays.
type fakeServer struct {
	answers []any
	bodies  []string
}

func (f *fakeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	f.bodies = append(f.bodies, string(body))
	answer := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	if err, failed := answer.(error); failed {
		return nil, err
	}
	return &http.Response{StatusCode: answer.(int), Body: io.NopCloser(strings.NewReader(""))}, nil
}

func TestAnAPIServerThatIsStartedAgainIsWaitedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		before  time.Duration // since the last outage; 0 for none
		answers []any
		status  int
		err     error
		calls   int
	}{
		"it is there":                                {0, []any{200}, 200, nil, 1},
		"it does not listen yet":                     {0, []any{syscall.ECONNREFUSED, syscall.ECONNREFUSED, 200}, 200, nil, 3},
		"it does not know yet who may do what":       {0, []any{syscall.ECONNREFUSED, 403, 403, 200}, 200, nil, 4},
		"another request found it gone a moment ago": {time.Second, []any{403, 200}, 200, nil, 2},
		"that was long ago":                          {time.Hour, []any{403}, 403, nil, 1},
		"it forbids what it always did":              {0, []any{403}, 403, nil, 1},
		"it breaks a connection, and may have acted": {0, []any{syscall.ECONNRESET, 200}, 0, syscall.ECONNRESET, 1},
		"it never comes back":                        {0, []any{syscall.ECONNREFUSED}, 0, syscall.ECONNREFUSED, 162},
		"it forbids for as long as it is waited for": {time.Millisecond, []any{403}, 403, nil, 161},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, known := &fakeServer{answers: tc.answers}, new(outage)
				if tc.before > 0 {
					known.seen.Store(time.Now().Add(-tc.before).UnixNano())
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api", strings.NewReader("it"))
				require.NoError(t, err)
				resp, err := known.patiently(server).RoundTrip(r)
				require.ErrorIs(t, err, tc.err)
				if err == nil {
					assert.Equal(t, tc.status, resp.StatusCode)
					_ = resp.Body.Close()
				}
				assert.Len(t, server.bodies, tc.calls)
				for _, body := range server.bodies {
					assert.Equal(t, "it", body)
				}
			})
		})
	}
}
