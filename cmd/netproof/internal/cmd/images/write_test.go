package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
)

var errOver = errors.New("over")

// large is an image that no pipe takes at once.
func large(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(4<<20, 1)
	require.NoError(t, err)
	return img
}

func TestAnImageThatIsWrittenNoLongerLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOver)
	var out bytes.Buffer
	err := write(ctx, cli.Streams{Out: &out, Err: &out}, filepath.Join(dir, "image.tar"), large(t), "netproof.dev/x:y")
	require.ErrorIs(t, err, errOver)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
	assert.Empty(t, out.String(), "there is no image to name")
}

func TestAReaderThatStopsDoesNotKeepTheWriterOfAnImage(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, exec.Command("mkfifo", "-m", "600", pipe).Run())
	ctx, cancel := context.WithCancelCause(t.Context())
	began := make(chan error, 1)
	closed := make(chan struct{})
	go func() {
		f, err := os.Open(pipe)
		if err == nil {
			_, err = io.ReadFull(f, make([]byte, 512))
			defer f.Close()
		}
		began <- err
		cancel(errOver) // and nobody reads the rest
		<-closed
	}()
	var out bytes.Buffer
	err := write(ctx, cli.Streams{Out: &out, Err: &out}, pipe, large(t), "netproof.dev/x:y")
	close(closed)
	require.NoError(t, <-began)
	require.ErrorIs(t, err, errOver)
	assert.Empty(t, out.String())
}
