package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// Info is what an engine says about itself.
type Info struct {
	// Client is the version of the program, Server that of the engine behind it. They are the same for Podman on Linux.
	Client, Server string
	// Cgroup is the version of the control groups that containers get, 0 if the engine does not say.
	Cgroup int
	// Rootless engines run as an ordinary user.
	Rootless bool
	// UserNamespace is true when the engine maps the root of containers to somebody else.
	UserNamespace bool
	// Root is the folder of images and volumes on the engine's machine.
	Root string
	// Kernel is the release of the engine's machine, System its name for people, Arch the processor as the kernel calls
	// it.
	Kernel, System, Arch string
	// Driver is how images and containers are stored, Runtime what starts containers.
	Driver, Runtime string
}

// dockerInfo has the fields of docker info --format '{{json .}}' that are read.
type dockerInfo struct {
	ServerVersion   string
	CgroupVersion   string
	CgroupDriver    string
	DockerRootDir   string
	KernelVersion   string
	OperatingSystem string
	OSType          string
	Architecture    string
	Driver          string
	DefaultRuntime  string
	SecurityOptions []string
	ServerErrors    []string
	ClientInfo      struct{ Version string }
}

// podmanInfo has the fields of podman info --format json that are read.
type podmanInfo struct {
	Host struct {
		Arch          string `json:"arch"`
		CgroupVersion string `json:"cgroupVersion"`
		Kernel        string `json:"kernel"`
		Distribution  struct {
			Distribution string `json:"distribution"`
			Version      string `json:"version"`
		} `json:"distribution"`
		OCIRuntime struct {
			Name string `json:"name"`
		} `json:"ociRuntime"`
		Security struct {
			Rootless bool `json:"rootless"`
		} `json:"security"`
	} `json:"host"`
	Store struct {
		GraphRoot       string `json:"graphRoot"`
		GraphDriverName string `json:"graphDriverName"`
	} `json:"store"`
	Version struct {
		Version string `json:"Version"`
	} `json:"version"`
}

// ParseInfo reads the output of the info command.
func ParseInfo(engine, text string) (Info, error) {
	if engine == Podman {
		var p podmanInfo
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return Info{}, fmt.Errorf("read podman info: %w", err)
		}
		version, _ := strconv.Atoi(strings.TrimPrefix(p.Host.CgroupVersion, "v")) // 0: not said
		return Info{
			Client: p.Version.Version, Server: p.Version.Version, Cgroup: version, Rootless: p.Host.Security.Rootless,
			Root: p.Store.GraphRoot, Kernel: p.Host.Kernel, Arch: p.Host.Arch, Driver: p.Store.GraphDriverName, Runtime: p.Host.OCIRuntime.Name,
			System: strings.TrimSpace(p.Host.Distribution.Distribution + " " + p.Host.Distribution.Version),
		}, nil
	}
	var d dockerInfo
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return Info{}, fmt.Errorf("read docker info: %w", err)
	}
	version, _ := strconv.Atoi(d.CgroupVersion) // 0: not said
	info := Info{
		Client: d.ClientInfo.Version, Server: d.ServerVersion, Cgroup: version, Root: d.DockerRootDir, Kernel: d.KernelVersion,
		System: d.OperatingSystem, Arch: d.Architecture, Driver: d.Driver, Runtime: d.DefaultRuntime,
	}
	for _, option := range d.SecurityOptions {
		for part := range strings.SplitSeq(option, ",") {
			info.Rootless = info.Rootless || part == "name=rootless"
			info.UserNamespace = info.UserNamespace || part == "name=userns"
		}
	}
	if len(d.ServerErrors) > 0 {
		return info, errors.New(strings.Join(d.ServerErrors, "; "))
	}
	return info, nil
}

// Info asks the engine about itself. The error is a [*Problem] where it was recognised.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	args := []string{"info", "--format", "{{json .}}"}
	if e.Name == Podman {
		args[2] = "json"
	}
	out, err := e.Output(ctx, args...)
	if err != nil {
		var info Info
		if known, parseErr := ParseInfo(e.Name, out); parseErr == nil {
			info = known // the client's part
		}
		return info, Explain(e.Name, err)
	}
	info, err := ParseInfo(e.Name, out)
	if err != nil {
		return info, Explain(e.Name, err)
	}
	return info, nil
}

// Detect returns the engine of that name, or for an empty name the one that kind would take: Docker if its program is
// there, else Podman.
func Detect(ctx context.Context, name string) (*Engine, error) {
	all, err := All(ctx, name)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// All returns the engines that clusters may be looked for in, at least one: that of the name, or for an empty name all
// whose program is there.
func All(ctx context.Context, name string) ([]*Engine, error) {
	candidates, what := []string{name}, title(name)
	switch name {
	case "":
		candidates, what = []string{Docker, Podman}, "Docker or Podman"
	case Docker, Podman:
	default:
		return nil, fmt.Errorf("container engine %q is not one that kind clusters can be made with: there are %s and %s", name, Docker, Podman)
	}
	var all []*Engine
	for _, candidate := range candidates {
		if isProgram(ctx, candidate) {
			all = append(all, &Engine{Name: candidate})
		}
	}
	if len(all) == 0 {
		return nil, notFound(ctx, what)
	}
	return all, nil
}

// notFound does not take an interruption for an answer.
func notFound(ctx context.Context, what string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("look for %s: %w", what, context.Cause(ctx))
	}
	return missing(what).on(runtime.GOOS)
}

// isProgram asks the program itself: some systems have a docker that is Podman.
func isProgram(ctx context.Context, name string) bool {
	if _, err := exec.LookPath(name); err != nil {
		return false
	}
	e := Engine{Name: name}
	out, err := e.Output(ctx, "-v")
	return err == nil && strings.HasPrefix(strings.ToLower(out), name+" version")
}

// Since tells whether a version is at least major.minor. A version that cannot be read is taken for a new one.
func Since(version string, major, minor int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	have, err := strconv.Atoi(parts[0])
	if err != nil {
		return true
	}
	if have != major || len(parts) < 2 {
		return have >= major
	}
	if have, err = strconv.Atoi(parts[1]); err != nil {
		return true
	}
	return have >= minor
}

func title(name string) string {
	if name == "" {
		return name
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
