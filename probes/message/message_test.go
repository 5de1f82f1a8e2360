package message

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

func TestARequestIsReadBackAndNothingShorterOrLongerIs(t *testing.T) {
	for _, kind := range []Kind{Probe, Look} {
		for _, nonce := range []probes.Nonce{"n", probes.Nonce(strings.Repeat("x", MaxNonce)), "\x00\xff"} {
			b := AppendRequest([]byte("before"), kind, nonce)[len("before"):]
			require.LessOrEqual(t, len(b), MaxRequest)
			k, n, err := ParseRequest(b)
			require.NoError(t, err)
			assert.Equal(t, kind, k)
			assert.Equal(t, string(nonce), string(n))
			for i := range b {
				_, _, err := ParseRequest(b[:i])
				require.ErrorIs(t, err, ErrShort)
			}
			_, _, err = ParseRequest(append(b, 0))
			require.ErrorIs(t, err, ErrForeign)
		}
	}
}

func TestAnAnswerIsReadBackAndNothingShorterOrLongerIs(t *testing.T) {
	for _, by := range []probes.Identity{
		{},
		{Endpoint: "x/a", UID: "6a7c"},
		{Endpoint: model.Endpoint(strings.Repeat("e", MaxEndpoint)), UID: strings.Repeat("u", MaxUID)},
	} {
		require.NoError(t, CheckIdentity(by))
		b := AppendAnswer(nil, []byte("nonce"), by)
		require.LessOrEqual(t, len(b), MaxAnswer)
		a, err := ParseAnswer(b)
		require.NoError(t, err)
		assert.Equal(t, "nonce", string(a.Nonce))
		assert.Equal(t, by, a.Identity())
		for i := range b {
			_, err := ParseAnswer(b[:i])
			require.ErrorIs(t, err, ErrShort)
		}
		_, err = ParseAnswer(append(b, 0))
		require.ErrorIs(t, err, ErrForeign)
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	require.Error(t, CheckNonce(""))
	require.Error(t, CheckNonce(probes.Nonce(strings.Repeat("x", MaxNonce+1))))
	require.NoError(t, CheckNonce("n"))
	require.Error(t, CheckIdentity(probes.Identity{Endpoint: model.Endpoint(strings.Repeat("e", MaxEndpoint+1))}))
	require.Error(t, CheckIdentity(probes.Identity{UID: strings.Repeat("u", MaxUID+1)}))
}

func TestMessagesOfOtherKindsAndVersionsAreToldApart(t *testing.T) {
	request := AppendRequest(nil, Probe, "n")
	answer := AppendAnswer(nil, []byte("n"), probes.Identity{Endpoint: "x/a"})
	refusal := AppendRefusal(nil)
	for _, b := range [][]byte{answer, refusal} {
		_, _, err := ParseRequest(b)
		require.ErrorIs(t, err, ErrForeign, "only requests may be answered: %q", b)
		b[2]++
		_, _, err = ParseRequest(b)
		require.ErrorIs(t, err, ErrForeign, "of whatever version: %q", b)
		b[2]--
	}
	_, err := ParseAnswer(request)
	require.ErrorIs(t, err, ErrForeign)
	_, err = ParseAnswer(refusal)
	require.ErrorIs(t, err, ErrVersion)
	request[2]++
	_, _, err = ParseRequest(request)
	require.ErrorIs(t, err, ErrVersion)
	answer[2]++
	_, err = ParseAnswer(answer)
	require.ErrorIs(t, err, ErrVersion)
	_, err = ParseAnswer([]byte("np\x01a\x01n\xff\xff"))
	require.ErrorIs(t, err, ErrForeign, "an endpoint longer than any")
}

func FuzzParse(f *testing.F) {
	f.Add(AppendRequest(nil, Probe, "n"))
	f.Add(AppendAnswer(nil, []byte("n"), probes.Identity{Endpoint: "x/a", UID: "u"}))
	f.Add(AppendRefusal(nil))
	f.Add([]byte("np\x01a\x01n\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, nonce, err := ParseRequest(b); err == nil {
			assert.Equal(t, b, AppendRequest(nil, k, probes.Nonce(nonce)))
		}
		if a, err := ParseAnswer(b); err == nil {
			assert.Equal(t, b, AppendAnswer(nil, a.Nonce, a.Identity()))
		}
	})
}
