package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/image"
)

// members lists what the layers of an image hold, a line each, in their order.
func members(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	var lines []string
	for _, l := range layers {
		r, err := l.Uncompressed()
		require.NoError(t, err)
		files := tar.NewReader(r)
		for {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			content, err := io.ReadAll(files)
			require.NoError(t, err)
			assert.Zero(t, h.Uid+h.Gid, h.Name)
			line := fmt.Sprintf("%o %s", h.Mode, h.Name)
			if h.Linkname != "" {
				line += " -> " + h.Linkname
			} else if h.Typeflag == tar.TypeReg && len(content) < 20 {
				line += " " + string(content)
			}
			lines = append(lines, line)
		}
		require.NoError(t, r.Close())
	}
	return lines
}

// machine is a folder with a program, as distributions link theirs.
func machine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o777))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "alternatives"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "usr/sbin/xtables"), []byte("multi"), 0o700))
	require.NoError(t, os.Symlink("usr/sbin", filepath.Join(dir, "sbin")))
	require.NoError(t, os.Symlink("../../alternatives/iptables", filepath.Join(dir, "usr/sbin/iptables")))
	require.NoError(t, os.Symlink(filepath.Join(dir, "sbin/xtables"), filepath.Join(dir, "alternatives/iptables")))
	return dir
}

func TestTheFullImageHoldsWhatLeadsToAProgram(t *testing.T) {
	dir := machine(t)
	programs, engines := &image.Tree{}, &image.Tree{}
	require.NoError(t, programs.Host(filepath.Join(dir, "sbin/iptables")))
	require.NoError(t, engines.File(image.Cache+"/engines/hello/greeter", filepath.Join(dir, "usr/sbin/xtables")))
	engines.Link(image.Cache+"/engines/hello/alias", "greeter")
	engines.Bytes(image.Cache+"/engines/hello/engine.json", []byte("{}"))
	img, ref, err := image.Full(t.Context(), makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD), "NETPROOF_CACHE", programs, engines)
	require.NoError(t, err)
	assert.Regexp(t, `^netproof\.dev/netproof:[0-9a-f]{16}$`, ref)

	got, in := members(t, img), dir[1:]
	for _, want := range []string{
		"1777 tmp/", "755 policies/", "700 root/",
		"777 " + in + "/sbin -> usr/sbin",
		"777 " + in + "/usr/sbin/iptables -> ../../alternatives/iptables",
		"777 " + in + "/alternatives/iptables -> " + dir + "/sbin/xtables",
		"555 " + in + "/usr/sbin/xtables multi",
		"755 " + in + "/usr/sbin/",
		"755 var/cache/netproof/engines/hello/",
		"777 var/cache/netproof/engines/hello/alias -> greeter",
		"444 var/cache/netproof/engines/hello/engine.json {}",
		"555 var/cache/netproof/engines/hello/greeter multi",
	} {
		assert.Contains(t, got, want)
	}
	assert.Regexp(t, `^555 netproof`, got[len(got)-1], "what changes most often lies on top")

	config, err := img.ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, []string{"/netproof"}, config.Config.Entrypoint)
	assert.Equal(t, "0:0", config.Config.User)
	assert.Contains(t, config.Config.Env, "NETPROOF_CACHE="+image.Cache)
	assert.Contains(t, config.Config.Env, "HOME=/root")
}

func TestTheSameFilesGiveTheSameImage(t *testing.T) {
	dir, executable := machine(t), makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD)
	write := func(order ...string) []byte {
		tree := &image.Tree{}
		for _, path := range order {
			require.NoError(t, tree.Host(filepath.Join(dir, path)))
		}
		img, ref, err := image.Full(t.Context(), executable, "NETPROOF_CACHE", tree)
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, image.Write(&b, img, ref))
		return b.Bytes()
	}
	first := write("sbin/iptables", "usr/sbin/xtables")
	require.NoError(t, os.Chtimes(filepath.Join(dir, "usr/sbin/xtables"), time.Unix(1, 0), time.Unix(1, 0)))
	assert.True(t, bytes.Equal(first, write("usr/sbin/xtables", "sbin/iptables")))
}

func TestAFileThatIsChangedMeanwhileDoesNotComeIntoAnImage(t *testing.T) {
	dir := machine(t)
	tree := &image.Tree{}
	require.NoError(t, tree.Host(filepath.Join(dir, "usr/sbin/xtables")))
	img, ref, err := image.Full(t.Context(), makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD), "NETPROOF_CACHE", tree)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "usr/sbin/xtables"), []byte("other"), 0o700))
	assert.ErrorContains(t, image.Write(io.Discard, img, ref), "changed while it was written")
}

func TestLinksThatLeadNowhereAreNamed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "a")))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
	require.NoError(t, os.Symlink("nothing", filepath.Join(dir, "c")))
	assert.ErrorContains(t, (&image.Tree{}).Host(filepath.Join(dir, "a")), "too many links")
	assert.ErrorContains(t, (&image.Tree{}).Host(filepath.Join(dir, "c")), "nothing: no such file")
	assert.ErrorContains(t, (&image.Tree{}).Host(dir), "is not a regular file")
}

func TestAnImageIsNotAssembledAnyLongerThanItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	_, _, err := image.Full(ctx, makeELF(t, elf.EM_X86_64, binary.LittleEndian, elf.PT_LOAD), "CACHE")
	assert.ErrorIs(t, err, over)
}
