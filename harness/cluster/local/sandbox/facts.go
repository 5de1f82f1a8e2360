package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ErrUnavailable is matched by every [UnavailableError].
var ErrUnavailable = errors.New("sandbox unavailable")

// UnavailableError says that this machine, or this user on it, cannot make a sandbox.
type UnavailableError struct {
	// Step is what could not be done, such as "create namespaces".
	Step string
	// Err is the kernel's answer; nil when the step was not even tried.
	Err error
	// Obstacles are the causes, or when none is certain those that may be.
	Obstacles []Obstacle
}

func (e *UnavailableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s for the sandbox", e.Step)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	for _, o := range e.Obstacles {
		may := ""
		if !o.Certain {
			may = "probably "
		}
		fmt.Fprintf(&b, "\n  %sbecause %s\n    fix: %s", may, o.Cause, o.Fix)
	}
	return b.String()
}

// Unwrap gives the kernel's answer.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrUnavailable) hold.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Obstacle is something on this machine that stands in the way of sandboxes.
type Obstacle struct {
	// Cause in plain words.
	Cause string
	// Fix is the command or setting that removes it.
	Fix string
	// Certain is true when no sandbox can be made; otherwise it depends on things that cannot be read, such as rules.
	Certain bool
}

// Facts are what sandboxes depend on. [ReadFacts] reads those of this process.
type Facts struct {
	// System is Go's name of the operating system, such as darwin, unless that is Linux.
	System string
	// UID is the effective user id.
	UID int
	// Capabilities is the effective set, as in /proc/self/status.
	Capabilities uint64
	// Seccomp is the mode of system call filtering: 0 none, 1 strict, 2 filter.
	Seccomp int
	// NoUserNamespaces is true when the kernel was built without them.
	NoUserNamespaces bool
	// Sysctls holds the values of those in the list sysctls; absent ones are missing.
	Sysctls map[string]string
	// Masked are the mount points below /proc, by which a container hides parts of it.
	Masked []string
}

const (
	sysctlUsernsClone = "kernel.unprivileged_userns_clone"
	sysctlAppArmor    = "kernel.apparmor_restrict_unprivileged_userns"
	sysctlMaxUser     = "user.max_user_namespaces"
	sysctlMaxNet      = "user.max_net_namespaces"
	sysctlMaxMnt      = "user.max_mnt_namespaces"
	sysctlMaxPID      = "user.max_pid_namespaces"
)

var sysctls = []string{sysctlUsernsClone, sysctlAppArmor, sysctlMaxUser, sysctlMaxNet, sysctlMaxMnt, sysctlMaxPID}

// ReadFacts reads the facts of this process. What cannot be read counts as no obstacle: the attempt will tell.
func ReadFacts() Facts {
	if runtime.GOOS != "linux" {
		return Facts{System: runtime.GOOS}
	}
	f := Facts{UID: os.Geteuid(), Sysctls: map[string]string{}}
	if text, err := os.ReadFile("/proc/self/status"); err == nil {
		f.Capabilities, f.Seccomp = parseStatus(string(text))
	}
	if _, err := os.Lstat("/proc/self/ns/user"); errors.Is(err, os.ErrNotExist) {
		f.NoUserNamespaces = true
	}
	for _, name := range sysctls {
		if text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			f.Sysctls[name] = strings.TrimSpace(string(text))
		}
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Masked = parseMasked(string(text))
	}
	return f
}

// parseStatus picks the effective capabilities and the seccomp mode out of /proc/PID/status.
func parseStatus(text string) (capabilities uint64, seccomp int) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapEff":
			capabilities, _ = strconv.ParseUint(value, 16, 64)
		case "Seccomp":
			seccomp, _ = strconv.Atoi(value)
		}
	}
	return capabilities, seccomp
}

// parseMasked picks the mount points below /proc out of /proc/PID/mountinfo, apart from those every system has.
func parseMasked(text string) []string {
	var masked []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || !strings.HasPrefix(fields[4], "/proc/") || fields[4] == "/proc/sys/fs/binfmt_misc" {
			continue
		}
		masked = append(masked, fields[4])
	}
	return masked
}

// required are the capabilities that making and using a sandbox needs.
var required = []uint{capSysAdmin, capNetAdmin, capNetRaw, capNetBindService}

// Numbers of capabilities, which are those of Linux wherever this is compiled (capabilities(7), linux/capability.h).
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capNetRaw         = 13
	capSysAdmin       = 21
)

// NeedsUserNamespace tells whether the other namespaces must be made inside a new user namespace: when the user is not
// root, or is a root without the privileges of one, as in most containers.
func (f Facts) NeedsUserNamespace() bool {
	for _, c := range required {
		if f.Capabilities&(1<<c) == 0 {
			return true
		}
	}
	return f.UID != 0
}

// Obstacles lists what stands in the way of a sandbox.
func (f Facts) Obstacles() []Obstacle {
	if f.System != "" {
		return []Obstacle{{
			Cause: "the clusters of --provider local are made of the namespaces of Linux, and this is " + f.System,
			Fix: "use --provider kind, which takes Docker; or run netproof in a container of the image that netproof images --full writes on Linux: " +
				`docker run --rm --privileged -v "$PWD:/policies" IMAGE run /policies`,
			Certain: true,
		}}
	}
	var found []Obstacle
	for _, name := range []string{sysctlMaxNet, sysctlMaxMnt, sysctlMaxPID} {
		if f.Sysctls[name] == "0" {
			found = append(found, forbidden(name, "65536"))
		}
	}
	if !f.NeedsUserNamespace() {
		return found
	}
	if f.NoUserNamespaces {
		found = append(found, Obstacle{
			Cause:   "this kernel was built without user namespaces (CONFIG_USER_NS)",
			Fix:     "run netproof as root",
			Certain: true,
		})
	}
	if f.Sysctls[sysctlMaxUser] == "0" {
		found = append(found, forbidden(sysctlMaxUser, "65536"))
	}
	if f.Sysctls[sysctlUsernsClone] == "0" {
		found = append(found, forbidden(sysctlUsernsClone, "1"))
	}
	if v := f.Sysctls[sysctlAppArmor]; v != "" && v != "0" {
		found = append(found, Obstacle{
			Cause: sysctlAppArmor + " is " + v + ": AppArmor takes the privileges away from programs without a profile that allows user namespaces",
			Fix:   "sudo sysctl -w " + sysctlAppArmor + "=0, or an AppArmor profile for netproof with `userns,`, or run netproof as root",
		})
	}
	if f.Seccomp != 0 {
		found = append(found, Obstacle{
			Cause: "a seccomp filter is in force, as in most containers",
			Fix:   "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or with --privileged",
		})
	}
	if len(f.Masked) > 0 {
		found = append(found, Obstacle{
			Cause: "parts of /proc are hidden (" + strings.Join(f.Masked, ", ") + "), and the kernel then refuses a new /proc to a user namespace",
			Fix:   "start the container with --security-opt systempaths=unconfined (Kubernetes: procMount: Unmasked), or with --privileged",
		})
	}
	return found
}

func forbidden(sysctl, value string) Obstacle {
	return Obstacle{
		Cause:   sysctl + " is 0",
		Fix:     "sudo sysctl -w " + sysctl + "=" + value,
		Certain: true,
	}
}

// refuse returns an error if there is no point in trying.
func (f Facts) refuse() error {
	var certain []Obstacle
	for _, o := range f.Obstacles() {
		if o.Certain {
			certain = append(certain, o)
		}
	}
	if len(certain) == 0 {
		return nil
	}
	return &UnavailableError{Step: "create namespaces", Obstacles: certain}
}

// explain adds the likely causes to the failure of a step.
func (f Facts) explain(step string, err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		return &UnavailableError{Step: step, Err: err, Obstacles: f.Obstacles()}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		// The limits count per user, and for each level of nesting.
		return &UnavailableError{Step: step, Err: err, Obstacles: append(f.Obstacles(), Obstacle{
			Cause: "this user has reached a limit of namespaces (/proc/sys/user/max_*_namespaces)",
			Fix:   "raise these, or end what holds the namespaces: lsns shows it",
		})}
	}
	return fmt.Errorf("%s for the sandbox: %w", step, err)
}
