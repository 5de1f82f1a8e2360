package image_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/image"
)

// makeELF writes an executable that has headers and nothing to run.
func makeELF(t *testing.T, machine elf.Machine, order binary.ByteOrder, segments ...elf.ProgType) string {
	t.Helper()
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(segments)),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if order == binary.BigEndian {
		h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, order, h))
	for _, s := range segments {
		require.NoError(t, binary.Write(&b, order, elf.Prog64{Type: uint32(s), Filesz: uint64(64 + 56*len(segments))}))
	}
	b.WriteString("content")
	path := filepath.Join(t.TempDir(), "netproof")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o755))
	return path
}

func TestTheImageHoldsTheExecutableAndNothingElse(t *testing.T) {
	path := makeELF(t, elf.EM_AARCH64, binary.LittleEndian, elf.PT_LOAD)
	img, ref, err := image.Agent(path)
	require.NoError(t, err)
	assert.Regexp(t, `^netproof\.dev/agent:[0-9a-f]{16}$`, ref)

	config, err := img.ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, "arm64", config.Architecture)
	assert.Equal(t, "linux", config.OS)
	assert.Equal(t, []string{"/netproof"}, config.Config.Entrypoint)
	assert.Equal(t, "65532:65532", config.Config.User)

	layers, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	r, err := layers[0].Uncompressed()
	require.NoError(t, err)
	defer r.Close()
	files := tar.NewReader(r)
	h, err := files.Next()
	require.NoError(t, err)
	assert.Equal(t, "netproof", h.Name)
	assert.EqualValues(t, 0o555, h.Mode)
	got, err := io.ReadAll(files)
	require.NoError(t, err)
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, want[64:64+56], got[64:], "the headers of segments, and nothing that is not loaded")
	_, err = files.Next()
	require.ErrorIs(t, err, io.EOF)
}

func TestTheSameExecutableGivesTheSameNameAndAnotherOneAnother(t *testing.T) {
	first := makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD)
	second := makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD)
	_, a, err := image.Agent(first)
	require.NoError(t, err)
	_, b, err := image.Agent(second)
	require.NoError(t, err)
	assert.Equal(t, a, b)

	f, err := os.OpenFile(second, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1}, 64+56-1)
	require.NoError(t, errors.Join(err, f.Close()))
	_, c, err := image.Agent(second)
	require.NoError(t, err)
	assert.NotEqual(t, a, c)
}

func TestAnArchiveCanBeReadBack(t *testing.T) {
	img, ref, err := image.Agent(makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "agent.tar")
	var archive bytes.Buffer
	require.NoError(t, image.Write(&archive, img, ref))
	require.NoError(t, os.WriteFile(path, archive.Bytes(), 0o644))
	tag, err := name.NewTag(ref)
	require.NoError(t, err)
	read, err := tarball.ImageFromPath(path, &tag)
	require.NoError(t, err)
	want, err := img.ConfigName()
	require.NoError(t, err)
	got, err := read.ConfigName()
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestWhatCannotRunInTheImageIsRefused(t *testing.T) {
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
		return path
	}
	for name, tc := range map[string]struct {
		path string
		want error
		text string
	}{
		"a dynamically linked executable": {makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_PHDR, elf.PT_INTERP), image.ErrDynamic, "CGO_ENABLED=0"},
		"a script":                        {write("#!/bin/sh\necho this is long enough to be looked at as a header of sixty-four bytes\n"), image.ErrNotLinux, "GOOS=linux"},
		"an empty file":                   {write(""), image.ErrNotLinux, "GOOS=linux"},
		"an executable for 32 bits":       {makeELF(t, elf.EM_386, binary.LittleEndian), image.ErrNotLinux, "EM_386"},
		"the other byte order":            {makeELF(t, elf.EM_PPC64, binary.BigEndian), image.ErrNotLinux, "EM_PPC64"},
		"a file that is not there":        {"/no/such/file", os.ErrNotExist, "/no/such/file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := image.Agent(tc.path)
			require.ErrorIs(t, err, tc.want)
			assert.ErrorContains(t, err, tc.text)
		})
	}
}

func TestAnExecutableThatShrinksIsNotTakenForWhole(t *testing.T) {
	path := makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD)
	img, ref, err := image.Agent(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 70))
	require.ErrorIs(t, image.Write(io.Discard, img, ref), io.ErrUnexpectedEOF)
}

// What is left out is not needed: this very program runs without it.
func TestATrimmedExecutableRuns(t *testing.T) {
	r, err := image.Archive("/proc/self/exe", "/trimmed")
	require.NoError(t, err)
	defer r.Close()
	files := tar.NewReader(r)
	h, err := files.Next()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), h.Name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode())
	require.NoError(t, err)
	_, err = io.Copy(f, files)
	require.NoError(t, errors.Join(err, f.Close()))
	whole, err := os.Stat("/proc/self/exe")
	require.NoError(t, err)
	assert.Less(t, h.Size, whole.Size())
	out, err := exec.CommandContext(t.Context(), path, "-test.list", "Trimmed").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(out), "TestATrimmedExecutableRuns")
}
