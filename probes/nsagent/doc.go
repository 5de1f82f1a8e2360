// Package nsagent is a [probes.Agent] that acts in a network namespace, out of this process.
//
// A socket belongs for good to the namespace it was made in. So one process can listen and dial in every pod of a
// machine: only the making of a socket happens inside the namespace (package inns), everything after it anywhere. An
// [Engine] drives the sockets of all agents of the process with a few epoll loops: no process per pod, no thread or
// goroutine per probe or connection.
//
//	engine, err := nsagent.NewEngine(nsagent.Options{})
//	agent, err := engine.NewAgent(nsagent.Config{Identity: id, Namespace: handle})
//	err = agent.Listen(ports...)      // the endpoint's servers
//	err = agent.Probe(ctx, batch, deliver)
//	err = agent.Close()
//
// What makes a sample worth something:
//
//   - Every probe has a source port of its own that was not used toward the same destination for longer than
//     connection tracking remembers (see [Options]); when none is left the probe is an error, never a stale "allowed".
//   - The outcome is what the kernel says on the socket's error queue, down to the ICMP type and code. An error that
//     was raised before anything could leave (no route, no free port) is Error with Sent=false: it says nothing about a
//     path.
//   - A Timeout is declared only by a loop that was awake: an answer already in the socket counts, and time during
//     which this process was starved does not.
package nsagent
