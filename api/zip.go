package api

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/comfyd/comfyd/comfy"
)

const zipSuffix = ".zip"

// zipped is one file of an archive.
type zipped struct {
	name  string
	piece piece
}

// archive is GET /outputs/{job}.zip: every output of a job, by a signed link or by the key of the job's owner. Nothing is
// compressed (pictures are already), so its size is known before it begins.
func (s *Server) archive(c *fiber.Ctx) error {
	name, err := pathValue(c, "archive")
	if err != nil {
		return err
	}
	id, ok := strings.CutSuffix(name, zipSuffix)
	if !ok {
		return fiber.ErrNotFound
	}
	j, err := s.linkedJob(c, id, archivePath(id))
	if err != nil {
		return err
	}
	files := filesOf(j.status.Result)
	if len(files) == 0 {
		return failf(CodeNotFound, "The job has no outputs.")
	}
	ctx, cancel := context.WithTimeout(s.life, checkTimeout)
	defer cancel()
	if err := s.checkStored(ctx, j.status.Result); err != nil {
		return s.explainLoss(j, err)
	}
	st, err := s.newZipStream(c, files, *j.status.EndedAt)
	if err != nil {
		return err
	}
	c.Status(http.StatusOK).Set(fiber.HeaderContentType, "application/zip")
	c.Set(fiber.HeaderContentDisposition, mime.FormatMediaType("attachment", map[string]string{"filename": "comfyd-" + path.Base(name)}))
	c.Context().SetBodyStream(st, int(st.size))
	return nil
}

// archivePath is the address of a job's archive; links are signed over it.
func archivePath(job string) string { return outputRoot(job) + zipSuffix }

// filesOf lists what a job has made, under names that are each used once, whatever the case of their letters.
func filesOf(r *comfy.Result) []zipped {
	if r == nil {
		return nil
	}
	var files []zipped
	taken := map[string]bool{}
	add := func(name string, p piece) {
		ext := path.Ext(name)
		unique := name
		for n := 2; taken[strings.ToLower(unique)]; n++ {
			unique = strings.TrimSuffix(name, ext) + "-" + strconv.Itoa(n) + ext
		}
		taken[strings.ToLower(unique)] = true
		files = append(files, zipped{unique, p})
	}
	for _, list := range [][]comfy.Output{r.Images, r.Files} {
		for _, out := range list {
			add(zipName(out.Subfolder, out.Filename), piece{key: out.Ref, length: out.SizeBytes})
		}
	}
	for _, t := range r.Texts {
		p := piece{text: []byte(t.Text), length: int64(len(t.Text))}
		if t.Ref != "" {
			p = piece{key: t.Ref, length: t.Size}
		}
		add(zipName("", "node-"+t.NodeID+".txt"), p)
	}
	return files
}

// zipName is a relative path that stays in the folder it is unpacked to.
func zipName(folder, name string) string {
	clean := path.Clean("/" + strings.NewReplacer(`\`, "/", "\x00", "", ":", "_").Replace(folder+"/"+name))
	if clean == "/" {
		return "output"
	}
	return clean[1:]
}

// zipStream is an archive that is written while it is sent. It holds one buffer.
type zipStream struct {
	src     *stream // reads what stands in the archive
	files   []zipped
	at      time.Time
	size    int64
	out     bytes.Buffer // written and not yet sent
	zip     *zip.Writer
	current io.Writer // the file that is being written; nil between files
	raw     []byte
	closed  bool
}

func (s *Server) newZipStream(c *fiber.Ctx, files []zipped, at time.Time) (*zipStream, error) {
	st := &zipStream{src: s.newStream(c), files: files, at: at, raw: make([]byte, chunk)}
	st.zip = zip.NewWriter(&st.out)
	var err error
	if st.size, err = zipSize(files, at); err != nil {
		_ = st.Close()
		return nil, fmt.Errorf("lay out the archive: %w", err)
	}
	return st, nil
}

// header is the same whether the archive is measured or written. Sizes and checksum follow the bytes.
func (z *zipped) header(at time.Time) *zip.FileHeader {
	return &zip.FileHeader{Name: z.name, Method: zip.Store, Modified: at.UTC()}
}

// Read fills p.
func (z *zipStream) Read(p []byte) (n int, err error) {
	defer endRead(z.src.log, "an archive broke off", &err)
	for z.out.Len() == 0 {
		if z.closed {
			return 0, io.EOF
		}
		if err := z.fill(); err != nil {
			return 0, err
		}
	}
	return z.out.Read(p)
}

// fill writes the next part of the archive.
func (z *zipStream) fill() (err error) {
	if z.current == nil {
		if len(z.files) == 0 {
			z.closed = true
			return z.zip.Close()
		}
		next := z.files[0]
		z.files = z.files[1:]
		if z.current, err = z.zip.CreateHeader(next.header(z.at)); err != nil {
			return err
		}
		z.src.pieces = []piece{next.piece}
	}
	n, err := z.src.read(z.raw)
	if err == io.EOF {
		z.current = nil
		return z.zip.Flush()
	}
	if err != nil {
		return err
	}
	if _, err := z.current.Write(z.raw[:n]); err != nil {
		return err
	}
	return z.zip.Flush()
}

// Close ends the archive, wherever it is.
func (z *zipStream) Close() error { return z.src.Close() }

// zipSize writes the archive to nowhere, with zeros for its bytes: offsets and sizes decide how long its headers are.
func zipSize(files []zipped, at time.Time) (int64, error) {
	var n counter
	w := zip.NewWriter(&n)
	zeros := make([]byte, 1<<20)
	for i := range files {
		h := files[i].header(at)
		length := uint64(files[i].piece.length)
		h.CompressedSize64, h.UncompressedSize64 = length, length
		// As CreateHeader does, which CreateRaw leaves to its caller: sizes and checksum follow the bytes, and the time
		// stands in an extra field of nine bytes.
		h.Flags |= 0x8
		h.Extra = make([]byte, 9)
		out, err := w.CreateRaw(h)
		if err != nil {
			return 0, err
		}
		for left := length; left > 0; {
			part := min(left, uint64(len(zeros)))
			if _, err := out.Write(zeros[:part]); err != nil {
				return 0, err
			}
			left -= part
		}
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	return int64(n), nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
