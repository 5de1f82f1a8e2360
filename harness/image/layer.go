package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const tarBlock = 512

// part is a piece of a layer: bytes, or a piece of a file, which is read when its turn comes. So a layer takes no more
// memory than the headers of its files.
type part struct {
	bytes []byte
	// source is a file, of which the bytes between from and to belong to the layer.
	source   string
	from, to int64
}

func (p part) size() int64 { return int64(len(p.bytes)) + p.to - p.from }

// layer is a tar stream. It is not compressed: what is loaded on the same machine would only be inflated again, and
// squeezing executables takes seconds.
type layer struct {
	parts  []part
	digest v1.Hash
}

var _ v1.Layer = (*layer)(nil)

// newLayer reads all sources once, for the digest.
func newLayer(ctx context.Context, parts []part) (*layer, error) {
	r := (&layer{parts: parts}).reader()
	defer r.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, interruptible{ctx, r}, make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	return &layer{parts: parts, digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(r.sum.Sum(nil))}}, nil
}

// interruptible ends reading when its context ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// header frames a member of a layer. Nothing of a file but its content goes in, for the same image whoever builds it,
// and when.
func header(h tar.Header) ([]byte, error) {
	var b bytes.Buffer
	h.Name, h.ModTime = strings.TrimPrefix(h.Name, "/"), time.Unix(0, 0)
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		return nil, fmt.Errorf("frame %s: %w", h.Name, err)
	}
	return b.Bytes(), nil
}

// padding fills the last block of a member.
func padding(size int64) []byte { return make([]byte, (tarBlock-size%tarBlock)%tarBlock) }

// trailer ends a layer.
func trailer() part { return part{bytes: make([]byte, 2*tarBlock)} }

// executableParts are those of an executable, which is trimmed.
func executableParts(source, path string) ([]part, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", source)
	}
	begin, size, err := trim(source, info.Size())
	if err != nil {
		return nil, err
	}
	h, err := header(tar.Header{Typeflag: tar.TypeReg, Name: path, Size: size, Mode: 0o555})
	if err != nil {
		return nil, err
	}
	return []part{{bytes: append(h, begin...)}, {source: source, from: int64(len(begin)), to: size}, {bytes: padding(size)}}, nil
}

// trim leaves out what the kernel does not load of an executable: symbols and debugging information, which are a third
// of it, and lie at its end. It returns another beginning, which does not point there any more, and the size.
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

// Archive is a tar stream with the executable as its one file, as it lies in the image, under another path: for those
// who copy it into a container. It must be closed.
func Archive(executable, path string) (io.ReadCloser, error) {
	parts, err := executableParts(executable, path)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", executable, err)
	}
	return (&layer{parts: append(parts, trailer())}).Uncompressed()
}

// Uncompressed implements [v1.Layer].
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.reader(), nil }

func (l *layer) reader() *layerReader {
	return &layerReader{left: l.parts, sum: sha256.New(), want: l.digest.Hex}
}

// layerReader reads one part after the other.
type layerReader struct {
	left []part
	// in is what is left of the first part, and nil where that was not begun. file is its source, and wanted how much
	// of that is to come.
	in     io.Reader
	file   *os.File
	wanted int64
	sum    hash.Hash
	// want is the digest of the whole, and empty while it is not known.
	want string
}

func (r *layerReader) Read(b []byte) (int, error) {
	for len(r.left) > 0 {
		if r.in == nil {
			if err := r.begin(r.left[0]); err != nil {
				return 0, err
			}
		}
		n, err := r.in.Read(b)
		r.sum.Write(b[:n])
		r.wanted -= int64(n)
		if errors.Is(err, io.EOF) {
			if err = r.end(); err == nil && n == 0 {
				continue
			}
		}
		return n, err
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); r.want != "" && got != r.want {
		return 0, errors.New("a file of the image was changed while it was written: try again")
	}
	return 0, io.EOF
}

func (r *layerReader) begin(p part) error {
	r.wanted = p.size()
	if p.source == "" {
		r.in = bytes.NewReader(p.bytes)
		return nil
	}
	f, err := os.Open(p.source)
	if err != nil {
		return err
	}
	r.file = f
	if _, err := f.Seek(p.from, io.SeekStart); err != nil {
		return err
	}
	r.in = io.LimitReader(f, r.wanted)
	return nil
}

// end goes on to the next part. It fails where a file was shorter than its header says.
func (r *layerReader) end() error {
	if r.wanted > 0 {
		return fmt.Errorf("%s was changed meanwhile: %w", r.left[0].source, io.ErrUnexpectedEOF)
	}
	err := r.Close()
	r.in, r.left = nil, r.left[1:]
	return err
}

// Close lets go of the file that is being read.
func (r *layerReader) Close() error {
	f := r.file
	if f == nil {
		return nil
	}
	r.file = nil
	return f.Close()
}

// Compressed implements [v1.Layer].
func (l *layer) Compressed() (io.ReadCloser, error) { return l.Uncompressed() }

// Digest implements [v1.Layer].
func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements [v1.Layer].
func (l *layer) DiffID() (v1.Hash, error) { return l.digest, nil }

// Size implements [v1.Layer].
func (l *layer) Size() (int64, error) {
	var size int64
	for _, p := range l.parts {
		size += p.size()
	}
	return size, nil
}

// MediaType implements [v1.Layer].
func (l *layer) MediaType() (types.MediaType, error) { return types.DockerUncompressedLayer, nil }
