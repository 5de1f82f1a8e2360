// Package lease keeps two runs off one cluster: a run takes a Lease of the cluster's API before it makes anything, and
// gives it back when all that it made is gone.
//
// What users of Leases get wrong is time. A holder that is alive is known by the signs of life it gives, and how long
// there was none is measured on the clock of whoever waits: the clocks of machines need not agree. Client-go's leader
// election follows the same rule and is not used here: it waits for a lock in silence, while a run must say at once who
// has the cluster, must not wait a minute for a process of this machine that has ended, and must leave word of what it
// could not remove.
package lease
