package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
)

// Version of the format; a server refuses requests of any other.
const Version = 1

// Sizes, in bytes.
const (
	headerLen = 4
	// MaxNonce is the length of the longest nonce.
	MaxNonce = math.MaxUint8
	// MaxUID is the length of the longest UID.
	MaxUID = math.MaxUint8
	// MaxEndpoint is the length of the longest endpoint; a namespace and a name are at most 63 and 253 long.
	MaxEndpoint = 512
	// MaxRequest and MaxAnswer are the lengths of the longest messages of their kinds.
	MaxRequest = headerLen + 1 + MaxNonce + macLen
	MaxAnswer  = headerLen + 1 + MaxNonce + 2 + MaxEndpoint + 1 + MaxUID + macLen
)

// Kind tells the messages apart.
type Kind byte

// The kinds.
const (
	// Probe is a request whose nonce the server remembers.
	Probe Kind = 'q'
	// Look is a request that is answered like a probe, but leaves no record: it asks whether the server is alive.
	Look Kind = 'l'

	answer  Kind = 'a'
	refusal Kind = 'x'
)

var (
	// ErrShort says that the bytes are the beginning of a message; more are needed.
	ErrShort = errors.New("message is not complete")
	// ErrForeign says that the bytes are no message of this format.
	ErrForeign = errors.New("not a netproof message")
	// ErrVersion says that the message is of another version of the format.
	ErrVersion = errors.New("netproof message of another version")
)

// CheckNonce tells whether a nonce fits into a message.
func CheckNonce(n probes.Nonce) error {
	if len(n) == 0 || len(n) > MaxNonce {
		return fmt.Errorf("nonce of %d bytes: must be 1 to %d", len(n), MaxNonce)
	}
	return nil
}

// CheckIdentity tells whether an identity fits into a message.
func CheckIdentity(id probes.Identity) error {
	if len(id.Endpoint) > MaxEndpoint || len(id.UID) > MaxUID {
		return fmt.Errorf("identity %.64s: endpoint of %d and UID of %d bytes: at most %d and %d",
			id.Endpoint, len(id.Endpoint), len(id.UID), MaxEndpoint, MaxUID)
	}
	return nil
}

func appendHeader(b []byte, k Kind) []byte { return append(b, 'n', 'p', Version, byte(k)) }

// AppendRequest appends a request to b. The nonce must have passed [CheckNonce].
func AppendRequest(b []byte, k Kind, nonce probes.Nonce) []byte {
	b = append(appendHeader(b, k), byte(len(nonce)))
	return append(b, nonce...)
}

// AppendAnswer appends the answer to a request with this nonce. The identity must have passed [CheckIdentity].
func AppendAnswer(b, nonce []byte, by probes.Identity) []byte {
	b = append(appendHeader(b, answer), byte(len(nonce)))
	b = append(b, nonce...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(by.Endpoint)))
	b = append(b, by.Endpoint...)
	b = append(b, byte(len(by.UID)))
	return append(b, by.UID...)
}

// AppendRefusal appends the answer to a request of another version.
func AppendRefusal(b []byte) []byte { return appendHeader(b, refusal) }

// parseHeader returns the kind. A version that is not ours comes back with [ErrVersion] and the kind: the header is
// the same in every version.
func parseHeader(b []byte) (Kind, error) {
	for i, want := range []byte{'n', 'p'} {
		if i >= len(b) {
			return 0, ErrShort
		}
		if b[i] != want {
			return 0, ErrForeign
		}
	}
	if len(b) < headerLen {
		return 0, ErrShort
	}
	if b[2] != Version {
		return Kind(b[3]), fmt.Errorf("%w: %d, want %d", ErrVersion, b[2], Version)
	}
	return Kind(b[3]), nil
}

// field cuts a field with a length of size bytes off b.
func field(b []byte, size, limit int) (value, rest []byte, err error) {
	if len(b) < size {
		return nil, nil, ErrShort
	}
	n := int(b[0])
	if size == 2 {
		n = int(binary.BigEndian.Uint16(b))
	}
	if n > limit {
		return nil, nil, ErrForeign
	}
	b = b[size:]
	if len(b) < n {
		return nil, nil, ErrShort
	}
	return b[:n], b[n:], nil
}

// ParseRequest reads a request that begins, and ends, with b. The nonce is a part of b. The error is [ErrShort] when b
// is only the beginning of one, [ErrVersion] when it should be answered with a refusal, and [ErrForeign] otherwise,
// also when bytes follow the request.
func ParseRequest(b []byte) (k Kind, nonce []byte, err error) {
	k, err = parseHeader(b)
	if k != Probe && k != Look && (err == nil || errors.Is(err, ErrVersion)) {
		return 0, nil, ErrForeign
	}
	if err != nil {
		return 0, nil, err
	}
	nonce, rest, err := field(b[headerLen:], 1, MaxNonce)
	if err != nil {
		return 0, nil, err
	}
	if len(nonce) == 0 || len(rest) > 0 {
		return 0, nil, ErrForeign
	}
	return k, nonce, nil
}

// Answer is a parsed answer; its slices are parts of the bytes it was parsed from.
type Answer struct {
	Nonce    []byte
	Endpoint []byte
	UID      []byte
	// Identified is the part of the message that holds the identity, equal for equal identities.
	Identified []byte
}

// Identity copies the identity out of the answer.
func (a Answer) Identity() probes.Identity {
	return probes.Identity{Endpoint: model.Endpoint(a.Endpoint), UID: string(a.UID)}
}

// ParseAnswer reads an answer that begins, and ends, with b. The error is [ErrShort] when b is only the beginning of
// one, [ErrVersion] when the server speaks another version, and [ErrForeign] otherwise.
func ParseAnswer(b []byte) (Answer, error) {
	k, err := parseHeader(b)
	if err != nil {
		return Answer{}, err
	}
	if k == refusal {
		return Answer{}, fmt.Errorf("%w: the server refused it", ErrVersion)
	}
	if k != answer {
		return Answer{}, ErrForeign
	}
	var a Answer
	rest := b[headerLen:]
	if a.Nonce, rest, err = field(rest, 1, MaxNonce); err != nil {
		return Answer{}, err
	}
	a.Identified = rest
	if a.Endpoint, rest, err = field(rest, 2, MaxEndpoint); err != nil {
		return Answer{}, err
	}
	if a.UID, rest, err = field(rest, 1, MaxUID); err != nil {
		return Answer{}, err
	}
	if len(rest) > 0 {
		return Answer{}, ErrForeign
	}
	return a, nil
}
