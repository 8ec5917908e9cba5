package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/iterm2"
	"github.com/charmbracelet/x/ansi/kitty"
	"github.com/charmbracelet/x/ansi/sixel"
	"github.com/spf13/cobra"
	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"

	"github.com/comfyd/comfyd/client"
)

// gallery shows pictures that were written, on terminals that say that they can.
type gallery struct {
	show, hide bool

	asked bool
	draw  func(io.Writer, image.Image) error // nil where the terminal cannot
	shown int
}

func (g *gallery) flags(c *cobra.Command) {
	c.Flags().BoolVar(&g.show, "show", false, "show all pictures in the terminal (default the first few, where it says that it can: kitty, iTerm2, sixel)")
	c.Flags().BoolVar(&g.hide, "no-show", false, "show no pictures in the terminal")
}

// check refuses what cannot be done before anything is begun.
func (g *gallery) check(env Env, s *server) error {
	switch {
	case g.show && g.hide:
		return usagef("--show and --no-show: choose one")
	case g.show && s.json:
		return usagef("--show and --json: choose one")
	case g.hide || s.json || !env.IsTerminal(env.Err):
		g.asked = true
	}
	if g.show && g.able(env) == nil {
		return usagef("--show: this is no terminal that says that it can show pictures, by kitty's, iTerm2's or the sixel protocol")
	}
	return nil
}

// able asks the terminal, once.
func (g *gallery) able(env Env) func(io.Writer, image.Image) error {
	if !g.asked {
		g.asked, g.draw = true, drawing(env)
	}
	return g.draw
}

const (
	// fewPictures are shown of one command unless told otherwise.
	fewPictures = 4
	// pictureSide is the longest side of a picture on a terminal, in pixels.
	pictureSide = 480
	// maxPixels bounds what is decoded for it: 200 MB in memory.
	maxPixels = 50_000_000
)

// showSaved shows the pictures among files that were written. What cannot be shown is passed over: it is written, after all.
func (g *gallery) showSaved(env Env, saved []client.Saved) error {
	if g == nil {
		return nil
	}
	for _, s := range saved {
		if !g.show && g.shown >= fewPictures {
			return nil
		}
		if !slices.Contains([]string{".png", ".jpg", ".jpeg", ".gif", ".webp"}, strings.ToLower(filepath.Ext(s.Path))) {
			continue
		}
		draw := g.able(env)
		if draw == nil {
			return nil
		}
		img, err := small(s.Path)
		if err != nil {
			continue
		}
		g.shown++
		// One write, so that nothing comes in between.
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s\n", printable(filepath.Base(s.Path)))
		if err := draw(&b, img); err != nil {
			return fmt.Errorf("cannot show %s: %w", s.Path, err)
		}
		b.WriteString("\n")
		if _, err := b.WriteTo(env.Err); err != nil {
			return err
		}
	}
	return nil
}

// small reads a picture and makes it small enough for a terminal.
func small(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	head, _, err := image.DecodeConfig(f)
	if err != nil {
		return nil, err
	}
	if head.Width <= 0 || head.Height <= 0 || head.Width > maxPixels/head.Height {
		return nil, fmt.Errorf("%s has too many pixels", path)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, err
	}
	size := img.Bounds().Size()
	longest := max(size.X, size.Y)
	if longest <= pictureSide {
		return img, nil
	}
	to := image.NewRGBA(image.Rect(0, 0, max(1, size.X*pictureSide/longest), max(1, size.Y*pictureSide/longest)))
	draw.ApproxBiLinear.Scale(to, to.Bounds(), img, img.Bounds(), draw.Src, nil)
	return to, nil
}

// pictureQuery asks a terminal for kitty's protocol, and then for its primary device attributes, which every terminal
// answers: with an attribute 4 where it has sixel.
var pictureQuery = ansi.KittyGraphics([]byte("AAAA"), "i=31", "s=1", "v=1", "a=q", "t=d", "f=24") + ansi.RequestPrimaryDeviceAttributes

// deviceAttributes is the answer to the second part of pictureQuery.
var deviceAttributes = regexp.MustCompile(`\x1b\[\?([0-9;]*)c`)

// drawing returns how this terminal shows pictures, nil where it does not. What stands in the environment counts only
// where no multiplexer is in between, which would keep the pictures.
func drawing(env Env) func(io.Writer, image.Image) error {
	term, program := env.Getenv("TERM"), env.Getenv("TERM_PROGRAM")
	between := env.Getenv("TMUX") != "" || strings.HasPrefix(term, "tmux") || strings.HasPrefix(term, "screen")
	switch {
	case term == "dumb":
		return nil
	case term == "xterm-kitty", term == "xterm-ghostty":
		return drawKitty
	case !between && (program == "iTerm.app" || program == "WezTerm" || env.Getenv("LC_TERMINAL") == "iTerm2"):
		return drawITerm2
	}
	answer := env.Ask(pictureQuery)
	attributes := deviceAttributes.FindStringSubmatch(answer)
	switch {
	case strings.Contains(answer, "\x1b_Gi=31;OK"):
		return drawKitty
	case attributes != nil && slices.Contains(strings.Split(attributes[1], ";"), "4"):
		return drawSixel
	}
	return nil
}

func drawKitty(w io.Writer, img image.Image) error {
	return kitty.EncodeGraphics(w, img, &kitty.Options{Action: kitty.TransmitAndPut, Transmission: kitty.Direct, Format: kitty.PNG, Chunk: true, Quiet: 2})
}

func drawITerm2(w io.Writer, img image.Image) error {
	var raw bytes.Buffer
	if err := png.Encode(&raw, img); err != nil {
		return err
	}
	content := make([]byte, base64.StdEncoding.EncodedLen(raw.Len()))
	base64.StdEncoding.Encode(content, raw.Bytes())
	_, err := io.WriteString(w, ansi.ITerm2(iterm2.File{Size: int64(raw.Len()), Inline: true, Content: content}))
	return err
}

func drawSixel(w io.Writer, img image.Image) error {
	var data bytes.Buffer
	if err := new(sixel.Encoder).Encode(&data, img); err != nil {
		return err
	}
	_, err := io.WriteString(w, ansi.SixelGraphics(0, 1, 0, data.Bytes()))
	return err
}
