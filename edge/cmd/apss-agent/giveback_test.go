package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProgramMaps(t *testing.T) {
	const maps = `00400000-0106b000 r-xp 00000000 fe:00 10592625                           /usr/bin/apss-agent
0106b000-01f14000 r--p 00c6b000 fe:00 10592625                           /usr/bin/apss-agent
01f14000-01fb5000 rw-p 01b14000 fe:00 10592625                           /usr/bin/apss-agent
02000000-03000000 r--s 00000000 fe:00 10592625                           /usr/bin/apss-agent
12dba2400000-12dba3400000 rw-p 00000000 00:00 0
7efec3bd0000-7efec3f00000 r-xp 00000000 fe:00 77                         /usr/bin/apss-agent-too
7ffc0a5e5000-7ffc0a606000 r-xp 00000000 00:00 0                          [vdso]
nonsense
`
	want := []span{{0x400000, 0x106b000}, {0x106b000, 0x1f14000}}
	if diff := cmp.Diff(want, programMaps([]byte(maps), "/usr/bin/apss-agent"), cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// What is unmapped is there when it is needed.
func TestUnmapProgram(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if len(programMaps(maps, path)) == 0 {
		t.Errorf("found nothing of %s in:\n%s", path, maps)
	}
	for range 3 {
		if err := unmapProgram(); err != nil {
			t.Fatal(err)
		}
		var help strings.Builder
		if err := printHelp(&help); err != nil || !strings.Contains(help.String(), "PROC_SCAN_INTERVAL") {
			t.Errorf("got %v and a help of %d bytes", err, help.Len())
		}
	}
}
