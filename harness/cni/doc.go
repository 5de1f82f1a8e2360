// Package cni knows what network plugins can do. One table, in capabilities.go, says for each plugin and range of
// versions which features it enforces and where that is written; nothing else in netproof may guess.
//
// The packages below hold one plugin each, and install holds what all of them need to be put on a real cluster.
package cni
