package local

// DefaultNodes is the number of nodes of a cluster that does not say.
const DefaultNodes = 2
