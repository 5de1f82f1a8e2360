package stage

import "golang.org/x/sync/semaphore"

// Lane is one of those that share a cluster.
type Lane struct {
	// Number counts from 1; 0 is the one that runs alone.
	Number int
	// Of is how many there are, beside that.
	Of int
	// RunID is the run's, which all have.
	RunID string
	// Starting bounds the pods that start at once in all lanes, nil where each lane has its own bound only.
	Starting *semaphore.Weighted
}
