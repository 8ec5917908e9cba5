// Command plot draws the results of make bench: a tile of bars for each of the rows that say most, and what a job costs as
// the queue grows. It takes the file of results and the picture to write (SVG).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// results are what this reads of bench/results.go.
type results struct {
	Systems []struct{ Name string }
	Lines   []line
}

type line struct {
	Row, Metric string
	Systems     map[string]struct{ Median float64 }
}

// tile is a picture of one metric; "" is the row's first.
type tile struct{ row, metric, title string }

var tiles = []tile{
	{"tiny", "polled every 5 ms, p50", "tiny job, polled, ms"},
	{"tiny", "with ?wait=30, p50", "tiny job, ?wait, ms"},
	{"submit", "one submission, p99", "submission, p99, ms"},
	{"burst", "", "burst, s"},
	{"big", "", "large burst, s"},
	{"polls-done", "polls a second", "polls/s, finished job"},
	{"polls-running", "polls a second", "polls/s, running job"},
	{"noise", "fetched again", "large result again, ms"},
	{"gap", "gap, p50", "GPU idle between jobs, ms"},
	{"after", "memory", "memory, MiB"},
}

// growth are drawn as lines over the number of jobs.
var growth = []tile{
	{"growth", "CPU per job, while it runs empty", "CPU per job, by queue, ms"},
	{"growth", "a tiny job, p50", "tiny job, by history, ms"},
}

const columns = 4

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: plot RESULTS.json PICTURE.svg")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	var all []*plot.Plot
	for _, t := range tiles {
		if p := r.bars(t); p != nil {
			all = append(all, p)
		}
	}
	for _, t := range growth {
		p, err := r.lines(t)
		if err != nil {
			return err
		}
		if p != nil {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%s has none of the rows that are drawn", from)
	}
	return picture(all, to)
}

// bars is nil where the results do not have the metric.
func (r results) bars(t tile) *plot.Plot {
	i := slices.IndexFunc(r.Lines, func(l line) bool { return l.Row == t.row && (t.metric == "" || l.Metric == t.metric) })
	if i < 0 {
		return nil
	}
	p := plot.New()
	head(p, t)
	var names []string
	for n, s := range r.Systems {
		names = append(names, s.Name)
		v, there := r.Lines[i].Systems[s.Name]
		if !there {
			continue
		}
		p.Y.Max = max(p.Y.Max, 1.1*v.Median)
		bar, err := plotter.NewBarChart(plotter.Values{v.Median}, vg.Points(22))
		if err != nil {
			continue // it refuses what is no number
		}
		bar.Color, bar.LineStyle.Width, bar.XMin = shade(n), 0, float64(n)
		p.Add(bar)
	}
	p.NominalX(names...)
	label := &p.X.Tick.Label // slanted, so that they do not run into each other
	label.Font.Size, label.Rotation, label.XAlign, label.YAlign = vg.Points(8), 0.5, draw.XRight, draw.YCenter
	p.X.Min, p.X.Max = -0.7, float64(len(r.Systems))-0.3
	return p
}

// lines is nil where the results do not have the metric.
func (r results) lines(t tile) (*plot.Plot, error) {
	p := plot.New()
	head(p, t)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	drawn := false
	for n, s := range r.Systems {
		var points plotter.XYs
		for _, l := range r.Lines {
			v, there := l.Systems[s.Name]
			if at, ok := strings.CutSuffix(l.Metric, ": "+t.metric); ok && there && l.Row == t.row {
				size, err := strconv.Atoi(at[strings.LastIndexByte(at, ' ')+1:])
				if err != nil {
					return nil, fmt.Errorf("%q: %w", l.Metric, err)
				}
				points = append(points, plotter.XY{X: float64(size), Y: v.Median})
				p.Y.Max = max(p.Y.Max, 1.3*v.Median) // room for the legend
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color, dots.Shape = shade(n), shade(n), draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(s.Name, line)
		drawn = true
	}
	if !drawn {
		return nil, nil
	}
	p.X.Max *= 2 // room for the last label
	return p, nil
}

// head writes what a tile shows, and begins it at 0.
func head(p *plot.Plot, t tile) {
	p.Title.Text = t.title
	p.Title.TextStyle.Font.Size, p.Legend.TextStyle.Font.Size = vg.Points(10), vg.Points(8)
	p.Y.Min, p.Y.Max = 0, 0
}

func shade(n int) color.Color { return plotutil.SoftColors[n%len(plotutil.SoftColors)] }

// picture lays the tiles out in rows.
func picture(all []*plot.Plot, to string) error {
	rows := (len(all) + columns - 1) / columns
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, columns)
		copy(grid[i], all[i*columns:min(len(all), (i+1)*columns)])
	}
	img := vgsvg.New(columns*6*vg.Centimeter, vg.Length(rows)*6*vg.Centimeter)
	area := draw.New(img)
	area.SetColor(color.White)
	area.Fill(area.Rectangle.Path())
	layout := draw.Tiles{Rows: rows, Cols: columns, PadX: vg.Millimeter * 4, PadY: vg.Millimeter * 4,
		PadTop: vg.Millimeter * 2, PadBottom: vg.Millimeter * 2, PadLeft: vg.Millimeter * 2, PadRight: vg.Millimeter * 2}
	for i, canvases := range plot.Align(grid, layout, area) {
		for j, canvas := range canvases {
			if p := grid[i][j]; p != nil {
				p.Draw(canvas)
			}
		}
	}
	var out bytes.Buffer
	if _, err := img.WriteTo(&out); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}
