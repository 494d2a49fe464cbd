package tier

import (
	"testing"

	"github.com/apss-sensor/apss/shared/detect"
)

func TestSight(t *testing.T) {
	rule := func(category, selection string) string {
		return "title: r\nlogsource: {category: " + category + "}\ndetection: {s: " + selection + ", condition: s}\n"
	}
	tests := []struct {
		name, doc    string
		full, little detect.Coverage
	}{
		{"command line", rule("process_creation", "{CommandLine|contains: x}"), detect.Live, detect.Live},
		{"program", rule("process_creation", "{process.name: sh}"), detect.Live, detect.Live},
		{"executable", rule("process_creation", "{Image: /bin/sh}"), detect.Live, detect.Blind},
		{"executable or command line", rule("process_creation", "[{Image: /bin/sh}, {CommandLine: sh}]"), detect.Live, detect.Degraded},
		{"environment", rule("process_creation", "{metadata.env|startswith: LD_PRELOAD=}"), detect.Live, detect.Blind},
		{"socket", rule("network_connection", "{DestinationPort: 22}"), detect.Live, detect.Live},
		{"socket's owner", rule("network_connection", "{process.name: sh}"), detect.Live, detect.Blind},
		{"file", rule("file_event", "{TargetFilename: /x}"), detect.Live, detect.Live},
		{"admission", rule("admission", "{pod_name: x}"), detect.Blind, detect.Blind},
	}
	for _, test := range tests {
		rules, errs := detect.Parse("r.yml", []byte(test.doc))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for tier, want := range map[Tier]detect.Coverage{Node: test.full, PodFull: test.full, SameUID: test.full, Limited: test.little} {
			if got := rules[0].Coverage(tier.Sight()); got != want {
				t.Errorf("%s at %s: got %s want %s", test.name, tier, got, want)
			}
		}
	}
}
