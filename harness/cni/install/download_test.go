package install_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/install"
)

// kept lists the files in the cache.
func kept(t *testing.T, opts install.Options) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(opts.CacheDir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	require.NoError(t, err)
	return files
}

func TestDownloadIsKeptAndNotAskedForAgain(t *testing.T) {
	asked := 0
	plugin := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		sends(manifest)(w, r)
	})
	opts := options(t)
	for range 2 {
		bundle, err := install.Load(t.Context(), plugin, opts)
		require.NoError(t, err)
		assert.Equal(t, plugin.Source.URL, bundle.Source)
	}
	assert.Equal(t, 1, asked)
	require.Len(t, kept(t, opts), 1)

	require.NoError(t, os.WriteFile(kept(t, opts)[0], []byte(manifest[:100]), 0o600))
	_, err := install.Load(t.Context(), plugin, opts)
	require.NoError(t, err)
	assert.Equal(t, 2, asked, "a damaged file is fetched again")
	content, err := os.ReadFile(kept(t, opts)[0])
	require.NoError(t, err)
	assert.Equal(t, manifest, string(content), "and fixed")
}

func TestRedirectIsFollowed(t *testing.T) {
	plugin := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/elsewhere" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		sends(manifest)(w, r)
	})
	_, err := install.Load(t.Context(), plugin, options(t))
	require.NoError(t, err)
}

func TestWrongDigestNamesURLBothDigestsAndTheFix(t *testing.T) {
	plugin := vendor(t, sends(manifest+"# changed\n"))
	opts := options(t)
	_, err := install.Load(t.Context(), plugin, opts)
	var wrong *install.DigestError
	require.ErrorAs(t, err, &wrong)
	assert.Equal(t, install.DigestError{What: plugin.Source.URL, Want: plugin.Source.Digest, Got: digest([]byte(manifest + "# changed\n")), Fix: wrong.Fix}, *wrong)
	for _, part := range []string{wrong.What, wrong.Want, wrong.Got, "--cni-manifest"} {
		require.ErrorContains(t, err, part)
	}
	assert.Empty(t, kept(t, opts), "nothing of it is kept")
}

func TestDownloadsThatDoNotComeWhole(t *testing.T) {
	half := manifest[:len(manifest)/2]
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"shorter than it was said to be": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
				_, _ = w.Write([]byte(half))
			},
			fmt.Sprintf("cut off after %d of %d bytes", len(half), len(manifest)),
		},
		"broken off in the middle of chunks": {
			func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(half))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			},
			"cut off after",
		},
		"ended by the end of the connection": {
			func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_, _ = conn.Write([]byte("HTTP/1.0 200 OK\r\n\r\n" + half))
					_ = conn.Close()
				}
			},
			"does not say where it ends",
		},
		"not there":   {http.NotFound, "404 Not Found; where that server cannot be reached, give the file with --cni-manifest"},
		"not allowed": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "403 Forbidden"},
		"endless redirects": {
			func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
			"stopped after 10 redirects",
		},
		"said to be huge": {
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000000000") },
			"it is 1000000000 bytes long",
		},
		"huge without saying so": {
			func(w http.ResponseWriter, _ *http.Request) {
				for range 40 {
					if _, err := w.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			},
			"longer than the 33554432 bytes that are taken",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plugin := vendor(t, c.handler)
			opts := options(t)
			_, err := install.Load(t.Context(), plugin, opts)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, plugin.Source.URL)
			assert.Empty(t, kept(t, opts))
		})
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	for name, begin := range map[string]string{"no answer": "", "half an answer": manifest[:100]} {
		t.Run(name, func(t *testing.T) {
			plugin := vendor(t, func(w http.ResponseWriter, r *http.Request) {
				if begin != "" {
					_, _ = w.Write([]byte(begin))
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			})
			_, err := install.Load(t.Context(), plugin, options(t, func(o *install.Options) { o.Stall = 100 * time.Millisecond }))
			require.ErrorContains(t, err, "the server has become silent for 100ms")
		})
	}
}

func TestCancellationEndsADownload(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	plugin := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(manifest[:100]))
		_ = http.NewResponseController(w).Flush()
		cancel(errors.New("the user has had enough"))
		<-r.Context().Done()
	})
	opts := options(t)
	_, err := install.Load(ctx, plugin, opts)
	require.ErrorContains(t, err, "the user has had enough")
	assert.Empty(t, kept(t, opts))
}

func TestServerThatIsDownIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	plugin := vendor(t, http.NotFound)
	plugin.Source.URL = "http://" + listener.Addr().String() + "/plugin.yaml"
	require.NoError(t, listener.Close())
	_, err = install.Load(t.Context(), plugin, options(t))
	require.ErrorContains(t, err, plugin.Source.URL)
	require.ErrorContains(t, err, "--cni-manifest")
}

func TestCacheThatCannotBeWrittenSaysHowToMoveIt(t *testing.T) {
	plugin := vendor(t, sends(manifest))
	opts := options(t, func(o *install.Options) { o.CacheDir = file(t, "not-a-folder", nil) })
	_, err := install.Load(t.Context(), plugin, opts)
	require.ErrorContains(t, err, install.CacheEnv)
}

func TestURLOfTheUsersCanBePinned(t *testing.T) {
	plugin := vendor(t, sends(manifest))
	url := plugin.Source.URL
	right := url + "#sha256=" + digest([]byte(manifest))[len("sha256:"):]
	for manifestURL, want := range map[string]string{
		url:                                "",
		right:                              "",
		url + "#sha256=" + digest(nil)[7:]: "is not what it should be",
		url + "#sha256=abc":                "64 hexadecimal digits",
		url + "#v1":                        "64 hexadecimal digits",
	} {
		_, err := install.Load(t.Context(), plugin, options(t, func(o *install.Options) { o.Manifest = manifestURL }))
		if want == "" {
			assert.NoError(t, err, manifestURL)
			continue
		}
		assert.ErrorContains(t, err, want, manifestURL)
	}
}
