// Package sandbox runs the current program again in namespaces of its own, so that a whole cluster can be built and
// nothing of it can be left behind.
//
// [Run] starts /proc/self/exe in new network, mount and PID namespaces, and in a new user namespace when the caller has
// not the privilege for these. Inside there is only a loopback interface and no route, a private /proc, /sys and /run,
// and TMPDIR lies on a tmpfs that vanishes with the sandbox. /tmp and all other files are those of the machine; so are
// the folders in /run, apart from those of system services and of container engines. What is written directly into /run
// goes with the sandbox.
//
// A program takes part by calling [Init] first thing in main or TestMain, and asking [Inside] afterwards:
//
//	func main() {
//		sandbox.Init()
//		if !sandbox.Inside() {
//			code, err := sandbox.Run(context.Background(), sandbox.Command{})
//			...
//			os.Exit(code)
//		}
//		...
//	}
//
// # Processes
//
// Three processes of the same program take part. The outer one waits, forwards signals and passes the exit code on. PID
// 1 of the new PID namespace sets the namespaces up in Init and never returns from there: it starts the worker, hands
// signals to it, reaps orphans and exits with the worker's code. The worker is where Init returns and main goes on. PID
// 1 is a process of its own because the init of a PID namespace must wait for any child, which would steal the children
// of os/exec if it ran them itself: which of its children are orphans cannot be told once a thread that started one has
// ended.
//
// # What ends a sandbox
//
// When PID 1 exits, the kernel kills every process of the PID namespace, and with the last of them the mounts,
// interfaces and files of the sandbox go. PID 1 exits when the worker does. It is killed by its parent-death signal
// when the outer process dies, whatever killed that, and in case the outer process died before that signal was armed,
// by the end of a socket that only the outer process holds.
package sandbox
