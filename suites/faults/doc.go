// Package faults breaks real kind clusters while something is proven on them, and the runs themselves: no run may then
// say what it does not know, and none may leave anything behind. Faults of the embedded cluster are in harness/run.
//
// Its tests need a container engine, a kind cluster of two workers that netproof made, and its executable: make
// test-kind has them.
package faults
