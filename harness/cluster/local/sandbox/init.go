//go:build linux

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors a process in the sandbox may have open, where the machine lets it be chosen.
const maxFiles = 1 << 20

// Init makes of this process what the one that started it wants it to be. It comes first in main or TestMain. In a
// process that is not starting as part of a sandbox it does nothing; in PID 1 of a sandbox it never returns; in one
// brought in by [Enter] it may run another program in place of this one.
func Init() {
	stage, fd, ok := parseStage(os.Getenv(envStage))
	if !ok || !Inside() {
		return
	}
	unix.CloseOnExec(fd)
	control := os.NewFile(uintptr(fd), "control")
	if stage == stageEnter {
		enterInit(control)
		return
	}
	exit(initMain(control, fd, stage))
}

// initMain is the life of PID 1.
func initMain(control *os.File, fd int, stage string) int {
	go func() {
		// Only the outer process holds the other end and it never writes: this returns when that process is gone.
		_, _ = io.Copy(io.Discard, control)
		exit(128 + int(syscall.SIGKILL))
	}()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	// In the background of a terminal with "stty tostop" a write would otherwise be retried for ever, since PID 1
	// cannot be stopped.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)

	report := func(st status) {
		// When the outer process is gone nobody is left to be told.
		_ = json.NewEncoder(control).Encode(st)
	}
	if err := setUp(); err != nil {
		var step *stepError
		st := status{Step: "set up", Error: err.Error()}
		if errors.As(err, &step) {
			st = status{Step: step.step, Error: step.err.Error()}
		}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			st.Errno = int(errno)
		}
		report(st)
		return 1
	}
	if stage == stageProbe {
		report(status{})
		return 0
	}
	// The descriptors below the control socket are the worker's, with the same numbers.
	files := make([]uintptr, fd)
	for i := range files {
		files[i] = uintptr(i)
	}
	worker, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   withEnv(withEnv(os.Environ(), envStage, pidNamespace()), "TMPDIR", TempDir),
		Files: files,
	})
	if err != nil {
		report(status{Step: "start worker", Error: err.Error()})
		return 1
	}
	for i := 3; i < fd; i++ {
		_ = unix.Close(i) // theirs now: an end of file must not wait for us
	}
	go func() {
		for s := range signals {
			if sig, ok := s.(syscall.Signal); ok {
				_ = unix.Kill(worker, sig) // gone means that we are about to exit
			}
		}
	}()
	report(status{})
	return reap(worker)
}

// reap waits for every child, orphans included, until the worker has ended, and returns its exit code.
func reap(worker int) int {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "sandbox: wait for worker: %v\n", err)
			return 1
		case pid != worker:
		case ws.Signaled():
			return 128 + int(ws.Signal())
		case ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// stepError names the part of the set-up that failed.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// setUp prepares the namespaces this process was started in.
func setUp() error {
	unix.Umask(0o022)
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount /proc", func() error {
			return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}},
		{"mount /sys", mountSys},
		{"mount /run", mountRun},
		{"bring lo up", loopbackUp},
		{"raise the limit of open files", raiseFiles},
	} {
		if err := s.do(); err != nil {
			return &stepError{s.name, err}
		}
	}
	return nil
}

// mountSys mounts a sysfs that shows the new network namespace, and keeps the control groups where programs look for
// them: the Go runtime reads its CPU limit there.
func mountSys() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	cgroups := cloneTree("/sys/fs/cgroup")
	err := unix.Mount("sysfs", "/sys", "sysfs", flags, "")
	if errors.Is(err, unix.EPERM) {
		// In a user namespace a sysfs may not be less restricted than the one it comes from.
		err = unix.Mount("sysfs", "/sys", "sysfs", flags|unix.MS_RDONLY, "")
	}
	if err != nil {
		return err
	}
	cgroups.attach("/sys/fs/cgroup")
	return nil
}

// privateOfRun are the entries of /run that a sandbox does not share with the machine. Either programs in it keep their
// own state there, or they would take the machine's services for the sandbox's.
var privateOfRun = []string{
	filepath.Base(filepath.Dir(TempDir)), "lock", "xtables.lock", "netns", "calico", "cni", "cilium", "flannel", "kubernetes",
	"containerd", "crio", "docker", "podman", "runc", "dbus", "mount", "systemd", "udev",
}

// HasOwn tells whether a folder is another one inside of a sandbox, so that a file which is made there inside is gone
// with the sandbox.
func HasOwn(folder string) bool {
	real, err := filepath.EvalSymlinks(folder)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return false // there is no such folder at all
	}
	if real == "/run" || real == "/proc" || real == "/sys" || strings.HasPrefix(real, "/proc/") || strings.HasPrefix(real, "/sys/") {
		return true
	}
	below, ok := strings.CutPrefix(real, "/run/")
	name, _, _ := strings.Cut(below, "/")
	return ok && slices.Contains(privateOfRun, name)
}

// mountRun gives the sandbox a /run of its own with the machine's folders in it, where people have files too, and with
// links such as NixOS has to its programs. Sockets and files of services, which lie directly in /run, are left out, as
// is privateOfRun.
func mountRun() error {
	links, kept := map[string]string{}, map[string]tree{}
	// What cannot be read cannot be kept.
	entries, _ := os.ReadDir("/run")
	for _, e := range entries {
		path := filepath.Join("/run", e.Name())
		switch {
		case slices.Contains(privateOfRun, e.Name()):
		case e.IsDir():
			kept[e.Name()] = cloneTree(path)
		case e.Type() == os.ModeSymlink:
			if to, err := os.Readlink(path); err == nil {
				links[e.Name()] = to
			}
		}
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join("/run", name)); err != nil {
			return err
		}
	}
	for name, t := range kept {
		if t.fd >= 0 {
			if err := os.Mkdir(filepath.Join("/run", name), 0o755); err != nil {
				return err
			}
		}
		t.attach(filepath.Join("/run", name))
	}
	for _, dir := range []string{"/run/lock", filepath.Dir(TempDir)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Mkdir(TempDir, 0o700)
}

// tree is a detached copy of a mount with what is mounted below it.
type tree struct{ fd int }

// cloneTree detaches a copy of path. It is for things that are good to have: a tree that cannot be had is empty.
func cloneTree(path string) tree {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return tree{fd: -1}
	}
	return tree{fd: fd}
}

// attach mounts the tree at path, if there is one.
func (t tree) attach(path string) {
	if t.fd < 0 {
		return
	}
	_ = unix.MoveMount(t.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	_ = unix.Close(t.fd)
}

// loopbackUp brings lo up, which is down in a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// raiseFiles raises the number of descriptors a process may open: a server and a few probes per pod add up.
func raiseFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	want := uint64(maxFiles)
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			want = min(want, most)
		}
	}
	// Setting it through package syscall, even to what it is, keeps the Go runtime from giving children the lower
	// limit this process started with.
	if limit.Max < want {
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}) == nil {
			return nil // only the real root may
		}
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
