package message

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain is m as one text, for the golden files.
func plain(m Incident) string {
	var b strings.Builder
	section := func(title string, lines ...string) {
		if len(lines) > 0 && lines[0] != "" {
			fmt.Fprintf(&b, "# %s\n%s\n", title, strings.Join(lines, "\n"))
		}
	}
	list := func(facts []Fact) (l []string) {
		for _, f := range facts {
			l = append(l, f.Name+": "+f.Value)
		}
		return l
	}
	section("headline", m.Headline(), m.Rule, m.Place, m.Seen())
	section("description", m.Description)
	section("where", list(m.Where)...)
	section("tree", m.Tree...)
	section("what", list(m.What)...)
	section("diff", m.Diff)
	section("why", m.Technique, m.Tactic, m.TechniqueURL)
	section("actions", m.Actions...)
	section("harmless", m.Harmless...)
	section("references", m.References...)
	section("ids", list(m.IDs)...)
	return b.String()
}

func TestOf(t *testing.T) {
	file := eventtest.Alert()
	file.Event = eventtest.FileModify()
	file.Event.Process = &event.Process{PID: 7, Exe: "/usr/bin/vi", UID: event.UnknownID, ExeDeleted: true, Capture: event.CaptureName}
	incident := integrationtest.Incident(integration.Opened, "", eventtest.Alert())
	test := integrationtest.Incident(integration.Resolved, "", file)
	test.Test, test.Count = true, 12345
	for name, i := range map[string]integration.Incident{
		"connect": incident, "file": test, "nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", plain(Of(i, 1000)))
		})
	}
	d := integrationtest.Digest(eventtest.Alert(), 2)
	m := OfDigest(d, 200)
	golden(t, "digest.txt", strings.Join(append([]string{m.Severity.String(), m.Headline, m.Why, m.More}, m.Lines...), "\n")+"\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestBounds: whatever an alert holds, the message is small and each text keeps to the limit.
func TestBounds(t *testing.T) {
	for name, a := range integrationtest.Alerts() {
		m := Of(integrationtest.Incident(integration.Opened, "", a), 200)
		texts := append([]string{m.Rule, m.Title, m.Description, m.Place, m.Diff, m.Technique, m.Tactic}, m.Tree...)
		texts = append(append(append(texts, m.Actions...), m.Harmless...), m.References...)
		for _, f := range append(append(m.Where, m.What...), m.IDs...) {
			texts = append(texts, f.Value)
		}
		for _, s := range texts {
			// A generation is indented beyond the limit.
			if n := length(strings.TrimLeft(s, " └─")); n > max(200, maxName+6) {
				t.Errorf("%s: a text of %d characters: %q", name, n, s)
			}
		}
		if len(m.Tree) > maxAncestors+3 || len(m.Actions) > maxItems+1 || len(m.References) > maxReferences+1 {
			t.Errorf("%s: %d generations, %d actions, %d references", name, len(m.Tree), len(m.Actions), len(m.References))
		}
	}
}

func TestSeen(t *testing.T) {
	at := eventtest.Time()
	for want, m := range map[string]Incident{
		"seen once":                             {Count: 1},
		"seen once, 2026-11-22 10:00:00 UTC":    {Count: 1, FirstSeen: at, LastSeen: at},
		"seen 3 times, 2026-11-22 10:00:00 UTC": {Count: 3, FirstSeen: at, LastSeen: at},
		"seen 1,234,567 times, first 2026-11-22 10:00:00 UTC, last 2026-11-22 10:01:00 UTC": {Count: 1234567, FirstSeen: at, LastSeen: at.Add(time.Minute)},
	} {
		if got := m.Seen(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTechniqueURL(t *testing.T) {
	for id, want := range map[string]string{
		"T1059": "https://attack.mitre.org/techniques/T1059/", "T1059.004": "https://attack.mitre.org/techniques/T1059/004/",
		"TA0011": "https://attack.mitre.org/tactics/TA0011/", "": "", "t1059": "", "T1059.4": "", "T1059/../../x": "", "T10590": "", "T1059\n": "",
	} {
		if got := techniqueURL(id); got != want {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
}

func TestIsLink(t *testing.T) {
	for s, want := range map[string]bool{
		"https://attack.mitre.org/techniques/T1059/004/": true, "http://example.com?a=b&c#d": true,
		"javascript:alert(1)": false, "https://": false, "see https://example.com": false, "https://user@example.com": false,
		"https://example.com|x": false, "https://example.com>": false, "https://exаmple.com": false, "https://example.com/)": false, "": false,
	} {
		if got := IsLink(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
}
