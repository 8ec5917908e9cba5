package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// sample is one figure of one run. Load is the machine's load average when it was taken.
type sample struct {
	Run                       int
	Row, System, Metric, Unit string
	Value, Load               float64
}

// fault is something that must not be.
type fault struct {
	Run               int
	Row, System, What string
}

func (f fault) String() string {
	return fmt.Sprintf("run %d, %s, %s: %s", f.Run+1, f.Row, f.System, f.What)
}

// results are everything that a bench has found, as it is written to bench/results.
type results struct {
	Began, Ended string
	Machine      machine
	Versions     map[string]string
	Runs         int
	Scale        scale
	Systems      []title
	Samples      []sample
	Faults       []fault
	Lines        []line // the samples of all runs together
}

type title struct{ Name, Title string }

// line is a figure of the table: what all runs together say about one metric.
type line struct {
	Row, Title, Metric, Unit string
	Systems                  map[string]spread
}

// spread is the median of the runs, with the least and the most. Ratio is the median of the ratios to the first system in
// the same run; 0 where that has no such figure.
type spread struct{ Median, Min, Max, Ratio float64 }

// conclude makes the lines, in the order in which rows and their metrics came.
func (r *results) conclude() {
	type key struct{ row, metric string }
	values := map[key]map[string]map[int]float64{}
	var order []key
	units := map[key]string{}
	for _, row := range rows {
		for _, s := range r.Samples {
			k := key{s.Row, s.Metric}
			if s.Row != row.id {
				continue
			}
			if values[k] == nil {
				values[k] = map[string]map[int]float64{}
				units[k] = s.Unit
				order = append(order, k)
			}
			if values[k][s.System] == nil {
				values[k][s.System] = map[int]float64{}
			}
			values[k][s.System][s.Run] = s.Value
		}
	}
	r.Lines = nil
	for _, k := range order {
		l := line{Row: k.row, Metric: k.metric, Unit: units[k], Systems: map[string]spread{}}
		l.Title = rows[slices.IndexFunc(rows, func(x row) bool { return x.id == k.row })].title
		base := values[k][r.Systems[0].Name]
		for name, runs := range values[k] {
			var all, ratios []float64
			for run, v := range runs {
				all = append(all, v)
				if base[run] != 0 && name != r.Systems[0].Name {
					ratios = append(ratios, v/base[run])
				}
			}
			s := spread{Median: median(all), Min: slices.Min(all), Max: slices.Max(all)}
			if len(ratios) > 0 {
				s.Ratio = median(ratios)
			}
			l.Systems[name] = s
		}
		r.Lines = append(r.Lines, l)
	}
}

// loads are the least and the most load average under which a figure was taken.
func (r *results) loads() (least, most float64) {
	for i, s := range r.Samples {
		if i == 0 {
			least, most = s.Load, s.Load
		}
		least, most = min(least, s.Load), max(most, s.Load)
	}
	return least, most
}

// write keeps the results as JSON.
func (r *results) write(file string) error {
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}
