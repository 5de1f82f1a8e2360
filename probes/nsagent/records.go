//go:build linux

package nsagent

import (
	"hash/maphash"
	"net/netip"
	"sync"

	"github.com/netproof/netproof/probes"
)

// defaultRecords is the number of nonces an endpoint remembers word for word; some 25 MB when full.
const defaultRecords = 1 << 18

// records is what the servers of one endpoint have seen. Its memory is bounded, and yet a nonce that was seen is never
// reported as not seen: what is evicted leaves its mark in a filter that may err only toward "seen", and a nonce that
// is found only there is an error, [probes.ErrForgotten], not an answer.
type records struct {
	mu sync.Mutex
	// half is the number of records in a generation. When the young one is full it becomes the old one, and the old one
	// is evicted.
	half       int
	young, old map[probes.Nonce]netip.AddrPort
	evicted    *filter
}

func newRecords(limit int) *records {
	if limit <= 0 {
		limit = defaultRecords
	}
	return &records{half: max(1, limit/2), young: map[probes.Nonce]netip.AddrPort{}}
}

// add remembers a nonce; the first peer stays.
func (r *records) add(nonce []byte, peer netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.young[probes.Nonce(nonce)]; ok {
		return
	}
	if _, ok := r.old[probes.Nonce(nonce)]; ok {
		return
	}
	if len(r.young) >= r.half {
		if len(r.old) > 0 && r.evicted == nil {
			r.evicted = newFilter()
		}
		for n := range r.old {
			r.evicted.add(n)
		}
		r.young, r.old = make(map[probes.Nonce]netip.AddrPort, r.half), r.young
	}
	r.young[probes.Nonce(nonce)] = peer
}

// find returns the records of those nonces that were seen, and the nonces whose records were evicted, so that nobody
// can say.
func (r *records) find(nonces []probes.Nonce) (seen []probes.Record, forgotten []probes.Nonce) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range nonces {
		peer, ok := r.young[n]
		if !ok {
			peer, ok = r.old[n]
		}
		switch {
		case ok:
			seen = append(seen, probes.Record{Nonce: n, Peer: peer})
		case r.evicted != nil && r.evicted.maybe(n):
			forgotten = append(forgotten, n)
		}
	}
	return seen, forgotten
}

// forget drops everything.
func (r *records) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.young, r.old, r.evicted = map[probes.Nonce]netip.AddrPort{}, nil, nil
}

// filter is a Bloom filter. With half a million nonces in it, one in a thousand of those that were never added
// looks as if it had been; with more the share grows, and never the other way round.
type filter struct {
	seed maphash.Seed
	bits []uint64
}

const (
	filterBits   = 1 << 23
	filterHashes = 7
)

func newFilter() *filter {
	return &filter{seed: maphash.MakeSeed(), bits: make([]uint64, filterBits/64)}
}

func (f *filter) each(n probes.Nonce, visit func(word int, bit uint64) bool) bool {
	h := maphash.String(f.seed, string(n))
	step := h>>32 | 1
	for range filterHashes {
		i := h % filterBits
		if !visit(int(i/64), 1<<(i%64)) {
			return false
		}
		h += step
	}
	return true
}

func (f *filter) add(n probes.Nonce) {
	f.each(n, func(word int, bit uint64) bool { f.bits[word] |= bit; return true })
}

func (f *filter) maybe(n probes.Nonce) bool {
	return f.each(n, func(word int, bit uint64) bool { return f.bits[word]&bit != 0 })
}
