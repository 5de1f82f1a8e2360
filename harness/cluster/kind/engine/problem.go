package engine

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Kind classifies problems.
type Kind string

// The kinds of problems that are recognised.
const (
	Missing     Kind = "engine-missing"
	Unreachable Kind = "engine-unreachable"
	Forbidden   Kind = "engine-forbidden"
	TooOld      Kind = "engine-too-old"
	TooNew      Kind = "client-too-new"
	DiskFull    Kind = "disk-full"
	PortTaken   Kind = "port-taken"
	NameTaken   Kind = "name-taken"
	NoImage     Kind = "image-not-pullable"
	NoHandles   Kind = "no-inotify-handles"
	NoAddresses Kind = "no-address-pool"
	NoIPv6      Kind = "no-ipv6"
	Cgroups     Kind = "cgroups"
	KernelLacks Kind = "kernel-lacks"
	NoPrivilege Kind = "no-privilege"
	NoMemory    Kind = "no-memory"
)

// Problem is a failure whose cause is known, and what to do about it.
type Problem struct {
	Kind Kind
	// Cause says what is wrong, Fix what to do.
	Cause, Fix string
	// Err is what it was recognised in; it may be nil.
	Err error
}

func (p *Problem) Error() string {
	text := p.Cause
	if p.Err != nil {
		text += fmt.Sprintf(" (%s)", strings.Join(strings.Fields(p.Err.Error()), " "))
	}
	return text + "\n  fix: " + p.Fix
}

func (p *Problem) Unwrap() error { return p.Err }

// IsSilent tells whether an error says that there is no engine to ask: its program is missing, or it cannot be reached.
func IsSilent(err error) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && (p.Kind == Missing || p.Kind == Unreachable || p.Kind == Forbidden)
}

func missing(what string) *Problem {
	return &Problem{Kind: Missing, Cause: "kind clusters need " + what + ", and no program of that name is in PATH",
		Fix: "install one (Debian and Ubuntu: apt-get install docker.io), or use --provider local, which needs neither"}
}

// fixesElsewhere are what to do on systems that are not Linux. There an engine comes with a virtual machine of its own.
var fixesElsewhere = map[Kind]string{
	Missing:     "install Docker Desktop, or Podman and then podman machine init --rootful",
	Unreachable: "start it (Docker Desktop, or podman machine start), or correct DOCKER_HOST or the docker context",
	Forbidden:   "start it as this user (Docker Desktop, or podman machine start), or correct DOCKER_HOST or the docker context",
}

// on gives the problem the fix for a system, by Go's name of it.
func (p *Problem) on(system string) *Problem {
	if fix, differs := fixesElsewhere[p.Kind]; differs && system != "linux" {
		p.Fix = fix
	}
	return p
}

// sign is a text by which a problem is known.
type sign struct {
	kind  Kind
	text  *regexp.Regexp
	cause string
	fix   string
}

// The sysctls are those that kind's known issues ask for.
const (
	RaiseHandles = "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288 (as root, on the engine's machine)"
	// WantInstances and WantWatches are the values in RaiseHandles.
	WantInstances = 512
	WantWatches   = 524288
)

// signs are tried in order; ENGINE stands for the name of the engine. Each was seen in the output of Docker, Podman,
// runc, systemd or the kubelet, as in signs_test.go.
var signs = []sign{
	{Forbidden, regexp.MustCompile(`(?i)permission denied while trying to connect to the docker|dial unix \S*(docker|podman)\.sock: connect: permission denied`),
		"this user may not talk to ENGINE", "sudo usermod -aG docker $USER and log in again, or run as root, or use rootless mode"},
	{Unreachable, regexp.MustCompile(`(?i)cannot connect to the docker daemon|is the docker daemon running|error during connect|cannot connect to podman|connection refused.*podman\.sock`),
		"ENGINE does not answer", "start it (systemctl start ENGINE, or, in a clone of netproof, as root: ci/docker.sh start), or correct DOCKER_HOST or the docker context"},
	{TooNew, regexp.MustCompile(`(?i)client version \S+ is too new`),
		"the docker program is too new for its daemon", "upgrade the daemon, or set DOCKER_API_VERSION to the version that the message names"},
	{TooOld, regexp.MustCompile(`(?i)client version \S+ is too old|unknown flag: --cgroupns`),
		"the ENGINE program is too old", "upgrade to Docker 20.10 or Podman 4.0, or newer"},
	{DiskFull, regexp.MustCompile(`(?i)no space left on device|disk quota exceeded`),
		"the disk of ENGINE is full", "free some: ENGINE system df shows what is there, ENGINE system prune removes what is not used"},
	{PortTaken, regexp.MustCompile(`(?i)port is already allocated|bind: address already in use|address already in use`),
		"the port for the API server was taken by another program in the meantime", "try again: another port is chosen each time"},
	{NameTaken, regexp.MustCompile(`(?i)the container name "\S+" is already in use|node\(s\) already exist for a cluster with the name`),
		"there are containers of this name already", "take another name, or remove them: netproof cluster list, kind get clusters"},
	{NoAddresses, regexp.MustCompile(`(?i)could not find an available, non-overlapping ipv4 address pool|all predefined address pools have been fully subnetted|could not find free subnet`),
		"ENGINE has no addresses left for one more network", "remove networks that are not used (ENGINE network prune), or give it more in default-address-pools of /etc/docker/daemon.json"},
	{NoIPv6, regexp.MustCompile(`(?i)cannot read ipv6 setup for bridge|ip6tables failed|iptables failed: ip6tables|is ipv6 enabled in the kernel|failed to get ipv6 address for node`),
		"ENGINE cannot make a network with IPv6", "load ip6_tables and ip6table_nat, sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0, and restart ENGINE; or use --ip-family ipv4"},
	{NoPrivilege, regexp.MustCompile(`(?i)unable to apply caps: operation not permitted`),
		"this machine withholds a capability that privileged containers get", "start the engine with ci/docker.sh of this project, which takes it out of what containers ask for"},
	{NoHandles, regexp.MustCompile(`(?i)too many open files|failed to create (control group )?inotify|inotify_(init|add_watch).*no space`),
		"the machine's inotify handles are used up", RaiseHandles},
	{Cgroups, regexp.MustCompile(`(?i)cgroup mountpoint does not exist|no cgroup mount found|cgroups: cannot find cgroup mount`),
		"the machine lacks a control group hierarchy that ENGINE needs", "mount cgroup v2, or for v1: mkdir -p /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd"},
	{Cgroups, regexp.MustCompile(`(?i)configured to not run on a host using cgroup v1|kubelet is configured to not run.*cgroup v1`),
		"this Kubernetes refuses control groups of version 1", "boot with systemd.unified_cgroup_hierarchy=1, or use a node image with Kubernetes before v1.35"},
	{Cgroups, regexp.MustCompile(`(?i)rootless provider requires (cgroup v2|setting systemd property)`),
		"rootless ENGINE lacks control over its control groups", "use cgroup v2 and systemd's Delegate=yes, see https://kind.sigs.k8s.io/docs/user/rootless/"},
	{KernelLacks, regexp.MustCompile(`(?i)unable to enable nat rule|can't initialize iptables table|table does not exist \(do you need to insmod`),
		"the kernel lacks a module for packet filtering", "modprobe ip_tables iptable_nat br_netfilter nf_tables (as root, on the engine's machine), and restart ENGINE"},
	{KernelLacks, regexp.MustCompile(`(?i)unknown filesystem type "?overlay|overlay.*no such device|failed to mount overlay`),
		"the kernel lacks the overlay file system", "modprobe overlay (as root, on the engine's machine)"},
	{NoMemory, regexp.MustCompile(`(?i)cannot allocate memory|out of memory: killed process|oom-?killed`),
		"the machine is out of memory", "a control plane takes 0.9 GiB and a worker 0.6 GiB: free some, or ask for fewer --nodes"},
}

// pullSigns are reasons why an image cannot be had.
var pullSigns = regexp.MustCompile(`(?i)manifest unknown|manifest for \S+ not found|pull access denied|repository \S+ not found|name unknown|` +
	`no such host|temporary failure in name resolution|server misbehaving|i/o timeout|tls handshake timeout|client\.timeout exceeded|request canceled while waiting|` +
	`network is unreachable|connection refused|connection reset|toomanyrequests|unauthorized|initializing source|image not known|no route to host`)

// Recognize gives the problem that a text tells of, or nil.
func Recognize(engine, text string) *Problem {
	return recognize(engine, text, func(Kind) bool { return true })
}

func recognize(engine, text string, admit func(Kind) bool) *Problem {
	for _, s := range signs {
		if admit(s.kind) && s.text.MatchString(text) {
			named := strings.NewReplacer("ENGINE", engine)
			p := &Problem{Kind: s.kind, Cause: named.Replace(s.cause), Fix: named.Replace(s.fix)}
			return p.on(runtime.GOOS)
		}
	}
	return nil
}

// nodeKinds are the problems that a node's own logs may tell of. Other texts occur in them without being the cause of
// anything: a kubelet that waits for its API server says that connections are refused.
var nodeKinds = []Kind{NoHandles, Cgroups, DiskFull, NoMemory, KernelLacks, NoPrivilege}

// RecognizeNode is [Recognize] for what a node's programs wrote.
func RecognizeNode(engine, text string) *Problem {
	return recognize(engine, text, func(k Kind) bool { return slices.Contains(nodeKinds, k) })
}

// Explain gives an error whose cause is known the form of a [*Problem]. Others, and nil, stay as they are.
func Explain(engine string, err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*Problem](err); known {
		return err
	}
	p := Recognize(engine, OutputOf(err))
	if p == nil {
		return err
	}
	p.Err = err
	return p
}

// ExplainPull is [Explain] for the failure to pull an image; tried says what was asked for, and where.
func ExplainPull(engine, image string, err error) error {
	if err == nil {
		return nil
	}
	text := OutputOf(err)
	// The engine itself may be the reason.
	if p := Recognize(engine, text); p != nil && (p.Kind == Unreachable || p.Kind == Forbidden || p.Kind == DiskFull) && !strings.Contains(text, "registry") {
		p.Err = err
		return p
	}
	cause := fmt.Sprintf("image %s is not on this machine, and cannot be pulled", image)
	if !pullSigns.MatchString(text) {
		cause = fmt.Sprintf("image %s is not on this machine, and pulling it went wrong", image)
	}
	return &Problem{Kind: NoImage, Cause: cause, Err: err,
		Fix: "without a network: make kind-images builds one, then set NETPROOF_KIND_IMAGE=netproof.dev/kind-node:v1.36.3 (or --kind-image); " +
			"otherwise check name, proxy and login of " + engine + " pull " + image}
}
