package message

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"github.com/netproof/netproof/probes"
)

// macLen is the length of a message authentication code in bytes: HMAC-SHA-256 cut to half, as RFC 2104 section 5
// allows.
const macLen = sha256.Size / 2

// ErrForged says that the message was not made with the key of this run.
var ErrForged = errors.New("netproof message of somebody else")

// Key authenticates the messages of one run. In a cluster that others use, a server with a key answers nobody but the
// run's probers, and a prober takes nobody's answer for that of the run's servers. With a nil key messages carry no
// code, which is for networks that the run made itself.
type Key []byte

// seal appends the code of the message that begins at from.
func (k Key) seal(b []byte, from int) []byte {
	if k == nil {
		return b
	}
	mac := hmac.New(sha256.New, k)
	mac.Write(b[from:])
	var sum [sha256.Size]byte
	return append(b, mac.Sum(sum[:0])[:macLen]...)
}

// open checks and cuts off the code. A beginning of a message is cut as well, so that it is too short for whoever
// parses it.
func (k Key) open(b []byte) (message []byte, genuine func() error) {
	if k == nil {
		return b, func() error { return nil }
	}
	n := max(0, len(b)-macLen)
	return b[:n], func() error {
		var sum [sha256.Size]byte
		mac := hmac.New(sha256.New, k)
		mac.Write(b[:n])
		if !hmac.Equal(mac.Sum(sum[:0])[:macLen], b[n:]) {
			return ErrForged
		}
		return nil
	}
}

// AppendRequest is [AppendRequest] with a code.
func (k Key) AppendRequest(b []byte, kind Kind, nonce probes.Nonce) []byte {
	from := len(b)
	return k.seal(AppendRequest(b, kind, nonce), from)
}

// AppendAnswer is [AppendAnswer] with a code.
func (k Key) AppendAnswer(b, nonce []byte, by probes.Identity) []byte {
	from := len(b)
	return k.seal(AppendAnswer(b, nonce, by), from)
}

// ParseRequest is [ParseRequest] for a request with a code. The error is [ErrForged] also for what a server without a
// key would answer with a refusal.
func (k Key) ParseRequest(b []byte) (Kind, []byte, error) {
	message, genuine := k.open(b)
	kind, nonce, err := ParseRequest(message)
	if err == nil {
		err = genuine()
	}
	if k != nil && errors.Is(err, ErrVersion) {
		err = ErrForged
	}
	if err != nil {
		return 0, nil, err
	}
	return kind, nonce, nil
}

// ParseAnswer is [ParseAnswer] for an answer with a code.
func (k Key) ParseAnswer(b []byte) (Answer, error) {
	message, genuine := k.open(b)
	answer, err := ParseAnswer(message)
	if err == nil {
		err = genuine()
	}
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}
