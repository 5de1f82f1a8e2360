package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	// agentRepository is the name of the agent image without its tag. Nothing answers there: the image is loaded, never
	// pulled.
	agentRepository = "netproof.dev/agent"
	// programPath is where the image has the executable.
	programPath = "/netproof"
	// agentUser is the user and group that the image runs as, one that has no name on any system.
	agentUser = 65532
	// tagLength is the number of hexadecimal digits of the image's digest that make its tag.
	tagLength = 16
)

// ErrDynamic says that an executable needs a program interpreter and libraries, which the image does not have.
var ErrDynamic = errors.New("executable is dynamically linked, and the image holds no libraries for it: build it with CGO_ENABLED=0")

// ErrNotLinux says that a file is not an executable for Linux.
var ErrNotLinux = errors.New("not an executable for Linux")

// HowToBuild builds what an image can hold, for nodes with the processor that netproof's own machine has.
const HowToBuild = "CGO_ENABLED=0 GOOS=linux go build -o netproof-linux ./cmd/netproof"

// Running gives the path of the executable that is running, under which other processes find it as well. It is the
// right one also if its file was replaced since. On other systems than Linux the error matches [ErrNotLinux]: probe
// pods cannot run it.
func Running() (string, error) { return running(runtime.GOOS) }

func running(system string) (string, error) {
	if system != "linux" {
		return "", fmt.Errorf("%w: probe pods run netproof itself, and this one is for %s: name one for Linux with --executable (%s)",
			ErrNotLinux, system, HowToBuild)
	}
	return fmt.Sprintf("/proc/%d/exe", os.Getpid()), nil
}

// architectures are Go's names for those of [elf.Machine] that Kubernetes has node images for. Those of 32 bits are not
// among them.
var architectures = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
	elf.EM_PPC64:   "ppc64le",
	elf.EM_S390:    "s390x",
	elf.EM_RISCV:   "riscv64",
}

// Agent assembles the image of an executable, and gives it a name whose tag stands for the content. The executable is
// read again whenever the image's layer is, so it must stay as it is. The error matches [ErrDynamic] or [ErrNotLinux]
// for a file that no container of the image could run. The architecture is the executable's.
func Agent(executable string) (v1.Image, string, error) {
	// One executable is read in no time.
	img, ref, err := assemble(context.Background(), executable, agentRepository, v1.Config{
		User:       fmt.Sprintf("%d:%d", agentUser, agentUser),
		WorkingDir: "/",
		Labels:     map[string]string{"org.opencontainers.image.title": "netproof agent"},
	})
	if err != nil {
		return nil, "", fmt.Errorf("assemble agent image of %s: %w", executable, err)
	}
	return img, ref, nil
}

// assemble makes an image that runs an executable, which lies on top of what the trees hold.
func assemble(ctx context.Context, executable, repository string, config v1.Config, trees ...*Tree) (v1.Image, string, error) {
	arch, err := Architecture(executable)
	if err != nil {
		return nil, "", err
	}
	parts, err := executableParts(executable, programPath)
	if err != nil {
		return nil, "", err
	}
	var layers []*layer
	for _, t := range trees {
		l, err := t.layer(ctx)
		if err != nil {
			return nil, "", err
		}
		layers = append(layers, l)
	}
	top, err := newLayer(ctx, append(parts, trailer()))
	if err != nil {
		return nil, "", err
	}
	config.Entrypoint = []string{programPath}
	// The configuration comes first, so that appending completes it.
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: arch,
		Created:      v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS:       v1.RootFS{Type: "layers"},
		Config:       config,
	})
	if err != nil {
		return nil, "", err
	}
	for _, l := range append(layers, top) {
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:   l,
			History: v1.History{CreatedBy: "netproof", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
		})
		if err != nil {
			return nil, "", err
		}
	}
	id, err := img.ConfigName()
	if err != nil {
		return nil, "", err
	}
	return img, repository + ":" + id.Hex[:tagLength], nil
}

// Architecture gives Go's name for the processor that a static executable for Linux runs on. Its errors are those of
// [Agent].
func Architecture(executable string) (string, error) {
	f, err := elf.Open(executable)
	if format, ok := errors.AsType[*elf.FormatError](err); ok {
		return "", notLinux(format.Error())
	}
	if errors.Is(err, io.EOF) {
		return "", notLinux("it is shorter than a header")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return "", notLinux("its ELF type is " + f.Type.String())
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", ErrDynamic
		}
	}
	arch, ok := architectures[f.Machine]
	if !ok || f.Class != elf.ELFCLASS64 || arch == "ppc64le" && f.ByteOrder.String() != "LittleEndian" {
		return "", notLinux(fmt.Sprintf("it is for %s, %s", f.Machine, f.Class))
	}
	return arch, nil
}

func notLinux(why string) error {
	return fmt.Errorf("file is %w: build netproof with GOOS=linux and the GOARCH of the nodes, and name its path (%s)", ErrNotLinux, why)
}

// Write writes the image as an archive that docker load, podman load and ctr images import take.
func Write(w io.Writer, img v1.Image, ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	if err := tarball.Write(tag, img, w); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}
