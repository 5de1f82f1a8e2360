// Package named keeps sandboxes running in the background under a name, without a file that says so.
//
// [Create] starts a daemon: this program once more, in a session of its own and in the network namespace of the
// machine. The daemon runs the program in a [sandbox] and holds an abstract unix socket, @netproof/UID/NAME, for as
// long as that lives. The name of an abstract socket is gone with the process that holds it, so whatever ends the
// daemon, SIGKILL included, nothing is left: the kernel takes the sandbox, and [List], which reads /proc/net/unix, no
// longer shows it. A name is taken when the socket is bound, which only one of two can do.
//
// Both sides of a connection check that the other one is of the same user: abstract sockets have no permissions. So
// another user who holds a name learns nothing and decides nothing; the name cannot be used meanwhile, which a
// [HeldError] says.
//
// A program takes part by calling [Init] right after sandbox.Init. [Create] runs it with the arguments that the caller
// chose, and where these lead it asks [Serving] and calls [Serve]:
//
//	sandbox.Init()
//	named.Init()
//	...
//	if named.Serving() {
//		return named.Serve(ctx, func(ctx context.Context, ready func(detail any) error) error {
//			// set up
//			if err := ready(whatListShows); err != nil {
//				return err
//			}
//			<-ctx.Done()
//			// tear down
//			return nil
//		})
//	}
//	info, err := named.Create(ctx, name, named.Options{})
package named
