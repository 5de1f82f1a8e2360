package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const tarBlock = 512

// fileLayer is a layer of one file. It is not compressed: what is loaded on the same machine would only be inflated again, and squeezing
// an executable takes seconds.
type fileLayer struct {
	source string
	// header is what precedes the file in the archive, with the file's own beginning, which is another one than on disk.
	header, trailer []byte
	// from and to bound what comes out of the source as it is.
	from, to int64
	digest   v1.Hash
}

var _ v1.Layer = (*fileLayer)(nil)

// newFileLayer reads the source once, for its digest.
func newFileLayer(source, path string) (*fileLayer, error) {
	l, err := frame(source, path)
	if err != nil {
		return nil, err
	}
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return nil, err
	}
	l.digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return l, nil
}

// frame makes a layer without its digest.
func frame(source, path string) (*fileLayer, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", source)
	}
	begin, size, err := trim(source, info.Size())
	if err != nil {
		return nil, err
	}
	var header bytes.Buffer
	// Nothing of the file but its content goes in, for the same image whoever builds it, and when.
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path, "/"), Size: size, Mode: 0o555, ModTime: time.Unix(0, 0),
		Format: tar.FormatUSTAR,
	}); err != nil {
		return nil, err
	}
	padding := (tarBlock - size%tarBlock) % tarBlock
	return &fileLayer{
		source: source, header: append(header.Bytes(), begin...), from: int64(len(begin)), to: size, trailer: make([]byte, padding+2*tarBlock),
	}, nil
}

// trim leaves out what the kernel does not load of an executable: symbols and debugging information, which are a third of it, and lie at its
// end. It returns another beginning, which does not point there any more, and the size.
func trim(source string, size int64) (begin []byte, trimmed int64, err error) {
	f, err := os.Open(source)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil || e.Class != elf.ELFCLASS64 {
		return nil, size, nil // whatever it is, it is left as it is
	}
	for _, p := range e.Progs {
		trimmed = max(trimmed, int64(p.Off+p.Filesz))
	}
	var h elf.Header64
	begin = make([]byte, binary.Size(h))
	if trimmed < int64(len(begin)) || trimmed > size {
		return nil, size, nil
	}
	if _, err := f.ReadAt(begin, 0); err != nil {
		return nil, 0, err
	}
	if _, err := binary.Decode(begin, e.ByteOrder, &h); err != nil {
		return nil, 0, err
	}
	h.Shoff, h.Shnum, h.Shstrndx = 0, 0, 0
	if _, err := binary.Encode(begin, e.ByteOrder, &h); err != nil {
		return nil, 0, err
	}
	return begin, trimmed, nil
}

// Archive is a tar stream with the executable as its one file, as it lies in the image, under another path: for those who copy it into a
// container. It must be closed.
func Archive(executable, path string) (io.ReadCloser, error) {
	l, err := frame(executable, path)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", executable, err)
	}
	return l.Uncompressed()
}

// Uncompressed implements [v1.Layer].
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.source)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(l.from, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &archive{
		Reader: io.MultiReader(bytes.NewReader(l.header), &exactly{f, l.to - l.from}, bytes.NewReader(l.trailer)),
		Closer: f,
	}, nil
}

type archive struct {
	io.Reader
	io.Closer
}

// exactly reads as many bytes, and fails where there are fewer.
type exactly struct {
	f    *os.File
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.f.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		return n, fmt.Errorf("%s was changed meanwhile: %w", e.f.Name(), io.ErrUnexpectedEOF)
	}
	return n, err
}

// Compressed implements [v1.Layer].
func (l *fileLayer) Compressed() (io.ReadCloser, error) { return l.Uncompressed() }

// Digest implements [v1.Layer].
func (l *fileLayer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements [v1.Layer].
func (l *fileLayer) DiffID() (v1.Hash, error) { return l.digest, nil }

// Size implements [v1.Layer].
func (l *fileLayer) Size() (int64, error) {
	return int64(len(l.header)) + l.to - l.from + int64(len(l.trailer)), nil
}

// MediaType implements [v1.Layer].
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.DockerUncompressedLayer, nil }
