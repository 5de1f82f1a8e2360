package install

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The most that is downloaded, in bytes.
const (
	manifestLimit = 32 << 20
	chartLimit    = 32 << 20
	// The source of Cilium is some 60 MB.
	archiveLimit = 512 << 20
)

// byHand is the fix for everything that goes wrong between this machine and a vendor's server.
const byHand = "where that server cannot be reached, give the file with --cni-manifest, or a chart with --cni-chart"

// errStalled ends a download that has become silent.
var errStalled = errors.New("the server has become silent")

// download asks for a URL and gives its content to read. What comes back is whole or an error: one that is cut off, too
// long or silent for too long.
func (o Options) download(ctx context.Context, url string, limit int64, read func(io.Reader) error) error {
	o.Progress("downloading " + url)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(o.Stall, func() { cancel(fmt.Errorf("%w for %s", errStalled, o.Stall)) })
	defer silence.Stop()

	body, err := o.get(ctx, url, limit)
	if err != nil {
		return fmt.Errorf("download %s: %w", url, causeOr(ctx, err))
	}
	defer body.Close()
	body.onRead = func() { silence.Reset(o.Stall) }
	err = read(body)
	if err == nil {
		// A reader that knows its own end, such as tar's, leaves a rest, and only the rest tells whether everything
		// came.
		_, err = io.Copy(io.Discard, body)
	}
	// What the reader makes of a body that broke off is not the cause.
	if body.err != nil && !errors.Is(body.err, io.EOF) {
		err = body.err
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", url, causeOr(ctx, err))
	}
	return nil
}

// get sends the request and checks what the answer says about itself.
func (o Options) get(ctx context.Context, url string, limit int64) (*body, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "netproof")
	response, err := o.HTTP.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, byHand)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close() // nothing of it counts
		return nil, fmt.Errorf("the server answers %s; %s", response.Status, byHand)
	}
	if response.ContentLength > limit {
		_ = response.Body.Close() // nothing of it counts
		return nil, fmt.Errorf("it is %d bytes long, and at most %d are taken", response.ContentLength, limit)
	}
	if endless(response) {
		_ = response.Body.Close() // nothing of it counts
		return nil, errors.New("the server does not say where it ends, so a half of it could not be told from the whole")
	}
	return &body{ReadCloser: response.Body, want: response.ContentLength, limit: limit}, nil
}

// endless tells whether the end of the connection is the only sign that the content has ended.
func endless(r *http.Response) bool {
	return r.ProtoMajor == 1 && r.ContentLength < 0 && len(r.TransferEncoding) == 0 && !r.Uncompressed
}

// causeOr is why the context ended, where that is why the error came.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// body is what a server sends. It counts, keeps to the limit, and remembers how it ended.
type body struct {
	io.ReadCloser
	// want is how long the server says it is, or -1.
	want, limit, got int64
	onRead           func()
	err              error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	b.got += int64(n)
	b.onRead()
	switch {
	case b.got > b.limit:
		err = fmt.Errorf("it is longer than the %d bytes that are taken", b.limit)
	case errors.Is(err, io.ErrUnexpectedEOF) && b.want >= 0:
		err = fmt.Errorf("it was cut off after %d of %d bytes: %w", b.got, b.want, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("it was cut off after %d bytes: %w", b.got, err)
	}
	b.err = err
	return n, err
}

// fetch downloads a file and compares its digest, where one is wanted.
func (o Options) fetch(ctx context.Context, url, want string, limit int64) ([]byte, error) {
	var content bytes.Buffer
	err := o.download(ctx, url, limit, func(r io.Reader) error {
		_, err := content.ReadFrom(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if got := sha256Of(content.Bytes()); want != "" && got != want {
		return nil, &DigestError{What: url, Want: want, Got: got, Fix: compareByHand}
	}
	return content.Bytes(), nil
}

const compareByHand = "either it was changed where it is published or on its way here: compare it with the vendor's, " +
	"and give a file that you trust with --cni-manifest or --cni-chart"

// fetchURL is fetch for a URL that the user gave, pinned or not.
func (o Options) fetchURL(ctx context.Context, url string, limit int64) ([]byte, error) {
	url, fragment, _ := strings.Cut(url, "#")
	digest := strings.Replace(fragment, "sha256=", "sha256:", 1)
	if fragment != "" && !validDigest(digest) {
		return nil, fmt.Errorf("read %s#%s: what follows # is not sha256= and 64 hexadecimal digits", url, fragment)
	}
	return o.fetch(ctx, url, digest, limit)
}

// isURL tells URLs of files from paths.
func isURL(text string) bool {
	return strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")
}

// cached returns a file of the cache by the digest of what it holds, and has it made where there is none or it is
// damaged. A file appears in the cache whole or not at all.
func (o Options) cached(digest, name string, whole func([]byte) error, make func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(o.CacheDir, strings.TrimPrefix(digest, "sha256:"), name)
	if content, err := os.ReadFile(path); err == nil && whole(content) == nil {
		return content, nil
	}
	content, err := make()
	if err != nil {
		return nil, err
	}
	if err := writeWhole(path, content); err != nil {
		return nil, fmt.Errorf("keep a download (set %s to use another folder): %w", CacheEnv, err)
	}
	return content, nil
}

// writeWhole writes a file under another name first, so that a reader never sees a part of it.
func writeWhole(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(part)))
		}
	}()
	if err := os.WriteFile(part, content, 0o644); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
