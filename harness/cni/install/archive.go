package install

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// chartFromArchive returns the chart inside a vendor's source archive. Only the chart is kept in the cache, packed as
// Helm packs charts, so that it can be carried to a machine without a network and given with --cni-chart there.
func (o Options) chartFromArchive(ctx context.Context, s Source) (*chart.Chart, error) {
	what := s.Chart + " in " + s.URL
	packed, err := o.cached(s.Digest, path.Base(s.Chart)+".tgz",
		func(content []byte) error {
			files, err := unpack(bytes.NewReader(content), "")
			if err != nil {
				return err
			}
			return s.compare(what, files)
		},
		func() ([]byte, error) {
			var files map[string][]byte
			err := o.download(ctx, s.URL, archiveLimit, func(r io.Reader) (err error) {
				files, err = unpack(r, s.Chart)
				return err
			})
			if err != nil {
				return nil, err
			}
			if err := s.compare(what, files); err != nil {
				return nil, err
			}
			return pack(path.Base(s.Chart), files)
		})
	if err != nil {
		return nil, err
	}
	return loadPacked(what, packed)
}

func (s Source) compare(what string, files map[string][]byte) error {
	if got := filesDigest(files); got != s.Digest {
		return &DigestError{What: what, Want: s.Digest, Got: got, Fix: compareByHand}
	}
	return nil
}

// unpack reads the regular files below a folder of an archive whose own top folder does not count, by their paths below
// that folder.
func unpack(archive io.Reader, folder string) (map[string][]byte, error) {
	plain, err := gzip.NewReader(archive)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	files := map[string][]byte{}
	size := 0
	for entries := tar.NewReader(plain); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		name, ok := below(header.Name, folder)
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(io.LimitReader(entries, chartLimit+1))
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", header.Name, err)
		}
		if size += len(content); size > chartLimit {
			return nil, fmt.Errorf("unpack %s: the chart has more than the %d bytes that are taken", header.Name, chartLimit)
		}
		files[name] = content
	}
	// The checksum of a gzip stream stands after the end of the tar file in it.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("unpack: there is no folder %s in it", folder)
	}
	return files, nil
}

// below cuts the archive's top folder and the wanted one off a path.
func below(name, folder string) (string, bool) {
	_, rest, ok := strings.Cut(path.Clean(name), "/")
	if !ok || folder == "" {
		return rest, ok
	}
	return strings.CutPrefix(rest, folder+"/")
}

// pack makes the archive that [loader.LoadArchive] reads, the same bytes for the same files.
func pack(folder string, files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	entries := tar.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err := entries.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + name, Mode: 0o644, Size: int64(len(files[name]))})
		if err != nil {
			return nil, fmt.Errorf("pack chart: %w", err)
		}
		if _, err := entries.Write(files[name]); err != nil {
			return nil, fmt.Errorf("pack chart: %w", err)
		}
	}
	if err := errors.Join(entries.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("pack chart: %w", err)
	}
	return out.Bytes(), nil
}

// chartFromFolder reads a chart that is not packed.
func chartFromFolder(folder string) (*chart.Chart, error) {
	c, err := loader.LoadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", folder, err)
	}
	return c, nil
}
