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

// TestSights: another user's processes beside the pause container's are out of sight.
func TestSights(t *testing.T) {
	own := View{Shared: true, SameUID: Access{Tried: 2}, Exe: Access{Tried: 3, Refused: 1}}
	crowd, hidden := own, own
	crowd.Exe.Refused = 2
	hidden.Exe.Refused, hidden.Hide = 2, 1
	for name, tt := range map[string]struct {
		view View
		want int
	}{"the agent's user and pause": {own, 1}, "others too": {crowd, 2}, "one of its own hides": {hidden, 1}, "limited": {View{Exe: Access{Tried: 9, Refused: 9}}, 1}} {
		if got := len(tt.view.Sights()); got != tt.want {
			t.Errorf("%s: got %d sights, want %d", name, got, tt.want)
		}
	}
}
