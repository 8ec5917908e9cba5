package localcomfy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tailLines is how many lines of a log go into an error.
const tailLines = 20

// output is the file that ComfyUI writes its log to. It may grow to its limit, and one older file is kept.
type output struct {
	path  string
	limit int64
	file  *os.File
}

func (b *Backend) openOutput() (*output, error) {
	o := &output{path: filepath.Join(b.data, "comfyui.log"), limit: b.t.logSize}
	var err error
	// Appending, so that writes go to the new end after the file was cut.
	if o.file, err = os.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("opening ComfyUI's log: %w", err)
	}
	return o, o.rotate()
}

// mark writes a line by which a person and tail know where a run begins.
func (o *output) mark(command []string) error {
	_, err := fmt.Fprintf(o.file, "%s%s: %s\n", runMark, time.Now().Format(time.RFC3339), strings.Join(command, " "))
	return err
}

const runMark = "--- comfyd starts ComfyUI, "

// rotate puts a log aside that has grown beyond its limit. ComfyUI holds the file open, so its content is moved.
func (o *output) rotate() error {
	info, err := o.file.Stat()
	if err != nil || info.Size() < o.limit {
		return err
	}
	old, err := os.Create(o.path + ".1")
	if err != nil {
		return err
	}
	defer old.Close()
	if _, err := io.Copy(old, io.NewSectionReader(o.file, 0, info.Size())); err != nil {
		return err
	}
	return o.file.Truncate(0)
}

// tail returns the last lines of the present run.
func (o *output) tail() []string {
	info, err := o.file.Stat()
	if err != nil {
		return nil
	}
	const most = 32 << 10
	from := max(0, info.Size()-most)
	raw, err := io.ReadAll(io.NewSectionReader(o.file, from, most))
	if err != nil {
		return nil
	}
	if i := bytes.LastIndex(raw, []byte(runMark)); i >= 0 {
		_, raw, _ = bytes.Cut(raw[i:], []byte("\n"))
	}
	return lastLines(string(raw), tailLines)
}

// lastLines of a text that are neither empty nor the same as the one before.
func lastLines(text string, n int) []string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimRight(line, " \r\t"); line != "" && (len(lines) == 0 || line != lines[len(lines)-1]) {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

func (o *output) close() { o.file.Close() }

// exists tells whether a file or folder is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
