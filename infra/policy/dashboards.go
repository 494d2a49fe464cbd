package policy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// dashboard is what is looked at of Grafana's JSON model
// (grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model).
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

var (
	ourMetric  = regexp.MustCompile(`\bapss_[a-z_]+`)
	instrument = regexp.MustCompile(`^[a-z]+(\.[a-z_]+)*$`)
)

// Dashboards returns the metrics that the dashboards for Prometheus name and no program has.
func Dashboards(c *Config) (faults []string) {
	have, err := c.instruments("edge", "functions", "webhook", "shared")
	if err != nil {
		return []string{err.Error()}
	}
	names, err := fs.Glob(c.files, "infra/dashboards/*.json")
	if err != nil || len(names) == 0 {
		return []string{fmt.Sprintf("there is no dashboard (%v)", err)}
	}
	for _, name := range names {
		source, err := fs.ReadFile(c.files, name)
		if err != nil {
			return []string{err.Error()}
		}
		var d dashboard
		if err := json.Unmarshal(source, &d); err != nil {
			return []string{name + ": " + err.Error()}
		}
		asked := 0
		for _, p := range d.Panels {
			for _, t := range p.Targets {
				for _, metric := range ourMetric.FindAllString(t.Expr, -1) {
					asked++
					if !have[plain(metric)] {
						faults = append(faults, fmt.Sprintf("%s: %s: there is no metric %s", name, p.Title, metric))
					}
				}
			}
		}
		if asked == 0 {
			faults = append(faults, name+": it asks for no metric of ours")
		}
	}
	return faults
}

// plain takes from the name of a metric what OpenTelemetry's exporter for Prometheus and a histogram add.
func plain(metric string) string {
	for _, suffix := range []string{"_total", "_bucket", "_sum", "_count", "_seconds", "_bytes", "_ratio"} {
		metric = strings.TrimSuffix(metric, suffix)
	}
	return metric
}

// instruments returns what may be an instrument's name in folders and those below, written as Prometheus does: each text that
// is one, alone and after a text of the same package that ends with a dot.
func (c *Config) instruments(folders ...string) (map[string]bool, error) {
	have := map[string]bool{}
	for _, folder := range folders {
		err := fs.WalkDir(c.files, folder, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if d.Name() == "testdata" {
				return fs.SkipDir
			}
			files, err := c.packageFiles(dir)
			if err != nil {
				return err
			}
			texts := literals(files)
			for prefix := range texts {
				switch {
				case strings.HasPrefix(prefix, "apss.") && strings.HasSuffix(prefix, "."):
					for name := range texts {
						if instrument.MatchString(name) {
							have[plain(strings.ReplaceAll(prefix+name, ".", "_"))] = true
						}
					}
				case strings.HasPrefix(prefix, "apss.") && instrument.MatchString(prefix):
					have[plain(strings.ReplaceAll(prefix, ".", "_"))] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return have, nil
}
