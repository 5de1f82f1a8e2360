// Package wire carries the operations of a [probes.Agent] over a stream, as JSON lines in both directions: [Serve]
// stands at the agent's end and [Dial] gives the other end an agent.
//
// Each side begins with a hello that tells the protocol's version; the agent's tells its identity too. Then the client
// sends calls, each with an id, and may cancel them; the agent sends parts of their results, as they come, and the end
// of each. Calls run at the same time.
//
//	-> {"netproof":"probes","version":1}
//	<- {"netproof":"probes","version":1,"identity":{"endpoint":"x/a","uid":"…"}}
//	-> {"call":1,"probe":[{"id":0,"nonce":"…",…}]}
//	<- {"call":1,"responses":[{"id":0,"nonce":"…","outcome":"answered",…}]}
//	<- {"call":1,"end":{"count":1}}
//	-> {"call":2,"records":["…"]}   {"call":3,"liveness":true}   {"call":4,"forget":true}   {"cancel":1}
//	-> {"call":5,"targets":["10.244.1.7"]}   {"call":6,"ping":true}
//
// An agent that others could reach is a [Guard]: the client's hello shows the key of its run, and before that the agent
// says nothing.
//
// A stream can end at any byte, and an exec over the Kubernetes API reports success when its connection drops. So only
// whole lines that say exactly what is expected count, a result is complete only with its end and its count, and
// anything else breaks the stream: whatever was in flight fails with [ErrStream]. It never looks like a denial.
package wire
