package store

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"
)

// inMemory is up to what size an upload waits in memory rather than in a file.
const inMemory = 1 << 20

// spool holds what is to be uploaded until its reader has come to its end: the key may depend on the bytes, and a reader
// that fails must leave nothing behind in the bucket.
type spool struct {
	size   int64
	digest string
	memory bytes.Buffer
	file   *os.File // nil while memory suffices; has no name, so that it goes with the process
}

func newSpool(ctx context.Context, r io.Reader) (*spool, error) {
	s := &spool{}
	var err error
	if s.size, s.digest, err = intake(ctx, s, r); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.memory.Len()+len(p) <= inMemory {
		return s.memory.Write(p)
	}
	if s.file == nil {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	return s.file.Write(p)
}

func (s *spool) toFile() (err error) {
	if s.file, err = os.CreateTemp("", "comfyd-upload-*"); err != nil {
		return err
	}
	if err := os.Remove(s.file.Name()); err != nil {
		return err
	}
	_, err = s.memory.WriteTo(s.file)
	s.memory = bytes.Buffer{}
	return err
}

// content reads the spool from its start.
func (s *spool) content() io.Reader {
	if s.file == nil {
		return bytes.NewReader(s.memory.Bytes())
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

// patience is how long the upload may stand still.
func (s *spool) patience() time.Duration {
	if s.file == nil {
		return quick
	}
	return idle
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}
