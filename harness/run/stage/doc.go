// Package stage is what a scenario is played on: the namespaces, pods, services, hosts and policies of one lane of a
// run, and its canaries. It makes them, changes them, knows what it made, shows that nobody else changed it, and undoes
// it. It judges nothing.
//
//   - stage.go has the whole of it, and its end; become.go turns a topology into the next; namespaces.go, services.go,
//     pods.go and policies.go are about one kind of thing each; podwatch.go hears what becomes of pods;
//   - names.go puts a prefix before the namespaces of a lane, in policies too;
//   - reach.go says how a connection is probed;
//   - stranger.go and rival.go find pods, services and policies of others; calicoselector.go reads Calico's selectors;
//   - canary.go holds the two connections that are always denied and always allowed, and the barrier that tells when a
//     change has reached every node.
package stage
