package probes

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// Nonce marks one probe; a server echoes it, and remembers having seen it. It is unique within a run.
type Nonce string

// Identity says who serves: a pod and its UID, or a node or host by name.
type Identity struct {
	// Endpoint is namespace/name of a pod, node:N or host:NAME.
	Endpoint model.Endpoint `json:"endpoint"`
	// UID of the pod; empty for nodes and hosts.
	UID string `json:"uid,omitempty"`
}

// Request asks an agent for one probe.
type Request struct {
	// ID is echoed in the response; it is unique within a batch.
	ID       int64          `json:"id"`
	Nonce    Nonce          `json:"nonce"`
	Protocol model.Protocol `json:"protocol"`
	Address  netip.Addr     `json:"address"`
	Port     int            `json:"port"`
	// TimeoutMs is how long to wait for the answer before the outcome is Timeout.
	TimeoutMs int64 `json:"timeoutMs"`
}

// Outcome is what a prober saw.
type Outcome string

// The outcomes. Timeout, Reset (connection refused or reset), Prohibited and Unreachable (ICMP errors) are those a
// denial can show itself by; WrongAnswer and Error never are.
const (
	Answered    Outcome = "answered"
	Timeout     Outcome = "timeout"
	Reset       Outcome = "reset"
	Prohibited  Outcome = "prohibited"
	Unreachable Outcome = "unreachable"
	// Unsupported: this kernel cannot make such a socket.
	Unsupported Outcome = "unsupported"
	// WrongAnswer: something answered, without this probe's nonce or in another form.
	WrongAnswer Outcome = "wrong-answer"
	// Error: the prober could not send; nothing is known about the path.
	Error Outcome = "error"
)

// Response is what became of one request.
type Response struct {
	ID      int64   `json:"id"`
	Nonce   Nonce   `json:"nonce"`
	Outcome Outcome `json:"outcome"`
	// Errno is the kernel's name for the error, such as ECONNREFUSED; empty when there was none.
	Errno string `json:"errno,omitempty"`
	// Detail explains WrongAnswer and Error.
	Detail string `json:"detail,omitempty"`
	// Sent is true once the packet was handed to the kernel.
	Sent bool `json:"sent"`
	// SentAt is when it was, by the prober's clock.
	SentAt time.Time `json:"sentAt"`
	// RTT is the time from SentAt to the answer or the error.
	RTT time.Duration `json:"rttNs"`
	// Attempts is the number of packets that carried the request (UDP resends within the time-out).
	Attempts int `json:"attempts"`
	// Connected is true when the handshake was completed: the network let packets pass both ways, whatever became of
	// the request after that. Such a probe shows no denial by the network layer, even if it timed out. Never for UDP.
	Connected bool `json:"connected,omitempty"`
	// By is who answered.
	By Identity `json:"by,omitzero"`
	// Source is the local address of the probe's socket.
	Source netip.AddrPort `json:"source,omitzero"`
}

// ErrForgotten is what Records returns when a nonce may have been seen, but its record had to make room for others: it
// cannot be told that it was not seen.
var ErrForgotten = errors.New("record forgotten")

// Record is a server's memory of one nonce.
type Record struct {
	Nonce Nonce `json:"nonce"`
	// Peer is the address that the server saw the probe come from.
	Peer netip.AddrPort `json:"peer"`
}

// ServerStatus is the state of one server of an endpoint, found by a probe from inside the endpoint's own namespace.
type ServerStatus struct {
	Port  model.Port `json:"port"`
	Alive bool       `json:"alive"`
	// Unsupported: this kernel has no such sockets, so there is no server to be alive.
	Unsupported bool `json:"unsupported,omitempty"`
	// Unknown: the look itself failed, and says nothing about the server.
	Unknown bool `json:"unknown,omitempty"`
	// Detail says why it is not alive.
	Detail string `json:"detail,omitempty"`
}

// Agent acts in the network namespace of one endpoint.
type Agent interface {
	// Identity says whose agent this is.
	Identity() Identity
	// Probe sends a batch, each request from a fresh socket, and calls deliver once per request as the outcomes come
	// in, from one goroutine. It returns when all were delivered or ctx ended; an error means that the rest is unknown.
	Probe(ctx context.Context, batch []Request, deliver func(Response)) error
	// Records returns those of the nonces that this endpoint's servers have seen. With [ErrForgotten] it returns those
	// that it still knows; for the others it cannot tell.
	Records(ctx context.Context, nonces []Nonce) ([]Record, error)
	// Liveness probes each of the endpoint's own servers from inside its namespace, by a path no policy can cut.
	Liveness(ctx context.Context) ([]ServerStatus, error)
}
