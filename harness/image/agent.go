package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	// Repository is the name of the agent image without its tag. Nothing answers there: the image is loaded, never pulled.
	Repository = "netproof.dev/agent"
	// Path is where the image has the executable.
	Path = "/netproof"
	// User is the user and group that the image runs as, one that has no name on any system.
	User = 65532
	// tagLength is the number of hexadecimal digits of the image's digest that make its tag.
	tagLength = 16
)

// ErrDynamic says that an executable needs a program interpreter and libraries, which the image does not have.
var ErrDynamic = errors.New("executable is dynamically linked, and the agent image holds no libraries: build it with CGO_ENABLED=0")

// ErrNotLinux says that a file is no executable for Linux.
var ErrNotLinux = errors.New("file is no executable for Linux: build netproof with GOOS=linux and the GOARCH of the nodes, and name its path")

// architectures are Go's names for those of [elf.Machine] that Kubernetes has node images for. Those of 32 bits are not among them.
var architectures = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
	elf.EM_PPC64:   "ppc64le",
	elf.EM_S390:    "s390x",
	elf.EM_RISCV:   "riscv64",
}

// Agent assembles the image of an executable, and gives it a name whose tag stands for the content. The executable is read again whenever
// the image's layer is, so it must stay as it is. The error matches [ErrDynamic] or [ErrNotLinux] for a file that no container of
// the image could run. The architecture is the executable's.
func Agent(executable string) (v1.Image, string, error) {
	img, ref, err := assemble(executable)
	if err != nil {
		return nil, "", fmt.Errorf("assemble agent image of %s: %w", executable, err)
	}
	return img, ref, nil
}

func assemble(executable string) (v1.Image, string, error) {
	arch, err := Architecture(executable)
	if err != nil {
		return nil, "", err
	}
	layer, err := newFileLayer(executable, Path)
	if err != nil {
		return nil, "", err
	}
	// The configuration comes first, so that appending completes it.
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: arch,
		Created:      v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{Path},
			User:       fmt.Sprintf("%d:%d", User, User),
			WorkingDir: "/",
			Labels:     map[string]string{"org.opencontainers.image.title": "netproof agent"},
		},
	})
	if err != nil {
		return nil, "", err
	}
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "netproof", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
	})
	if err != nil {
		return nil, "", err
	}
	id, err := img.ConfigName()
	if err != nil {
		return nil, "", err
	}
	return img, Repository + ":" + id.Hex[:tagLength], nil
}

// Architecture gives Go's name for the processor that a static executable for Linux runs on. Its errors are those of [Agent].
func Architecture(executable string) (string, error) {
	f, err := elf.Open(executable)
	if format, ok := errors.AsType[*elf.FormatError](err); ok {
		return "", fmt.Errorf("%w (%w)", ErrNotLinux, format)
	}
	if errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%w (it is shorter than a header)", ErrNotLinux)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return "", fmt.Errorf("%w (its ELF type is %s)", ErrNotLinux, f.Type)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", ErrDynamic
		}
	}
	arch, ok := architectures[f.Machine]
	if !ok || f.Class != elf.ELFCLASS64 || arch == "ppc64le" && f.ByteOrder.String() != "LittleEndian" {
		return "", fmt.Errorf("%w (it is for %s, %s)", ErrNotLinux, f.Machine, f.Class)
	}
	return arch, nil
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
