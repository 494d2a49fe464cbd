package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/apss-sensor/apss/edge/internal/source/file"
)

const packFolder = "../../../shared/detect/rules"

// unreached are the paths of rules that no default reaches, and why not.
var unreached = map[string]string{
	"/lib/systemd/system/": "a second name of /usr/lib/systemd/system, which is watched, since the merge of /usr that systemd 255 asks for; both would tell all twice",
	"/lib/systemd/":        "the same",
	"/usr/lib/systemd/":    "its part that starts services is watched; the rest are programs",
	"/var/run/utmp":        "a second name of /run/utmp",
}

// TestDefaultsReachThePack: what the rules of the pack ask about is watched, or it is said here why not.
func TestDefaultsReachThePack(t *testing.T) {
	changes := slices.Concat(file.DefaultPaths(), file.DefaultLogs())
	reads := file.DefaultReadPaths()
	sources, err := filepath.Glob(packFolder + "/*.yml")
	if err != nil || len(sources) == 0 {
		t.Fatalf("got no rules: %v", err)
	}
	rules, paths := 0, 0
	met := make(map[string]bool)
	for _, source := range sources {
		f, err := os.Open(source)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for decoder := yaml.NewDecoder(f); ; {
			var rule struct {
				ID        string                    `yaml:"id"`
				Logsource struct{ Category string } `yaml:"logsource"`
				Detection map[string]any            `yaml:"detection"`
			}
			if decoder.Decode(&rule) != nil {
				break
			}
			if !strings.HasPrefix(rule.Logsource.Category, "file_") {
				continue
			}
			rules++
			watched := changes
			if rule.Logsource.Category == "file_access" {
				watched = reads
			}
			for _, asked := range targets(rule.Detection) {
				paths++
				if reason := unreached[asked]; reason != "" {
					met[asked] = true
				} else if !reaches(watched, asked) {
					t.Errorf("%s asks about %s, which no default reaches: watch it, or say here why not", rule.ID, asked)
				}
			}
		}
	}
	if rules < 15 || paths < 80 {
		t.Errorf("got %d rules about files with %d paths: is the pack read?", rules, paths)
	}
	for asked := range unreached {
		if !met[asked] {
			t.Errorf("no rule asks about %s", asked)
		}
	}
}

// targets are the paths, whole, the beginnings and the ends of such, that a detection asks for.
func targets(detection any) (paths []string) {
	switch d := detection.(type) {
	case map[string]any:
		for key, value := range d {
			field, modifier, _ := strings.Cut(key, "|")
			switch {
			case field != "TargetFilename":
				paths = append(paths, targets(value)...)
			case modifier == "re":
				for _, p := range texts(value) {
					paths = append(paths, samples(p)...)
				}
			case modifier == "" || modifier == "startswith" || modifier == "contains" || modifier == "endswith":
				for _, p := range texts(value) {
					if modifier == "endswith" || modifier == "contains" {
						continue // such name no path: those of homes are below, in homes
					}
					paths = append(paths, p)
				}
			}
		}
	case []any:
		for _, value := range d {
			paths = append(paths, targets(value)...)
		}
	}
	return paths
}

func texts(value any) []string {
	if list, ok := value.([]any); ok {
		var out []string
		for _, v := range list {
			out = append(out, texts(v)...)
		}
		return out
	}
	s, _ := value.(string)
	return []string{s}
}

// samples are paths that a regular expression of the pack matches, of those that there are on GKE's nodes and on Debian.
func samples(expression string) []string {
	re := regexp.MustCompile(expression)
	return slices.DeleteFunc([]string{
		"/usr/bin/runc", "/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/bin/kubelet", "/usr/bin/crictl",
		"/opt/cni/bin/ptp", "/home/kubernetes/bin/kubelet", "/etc/cni/net.d/10-gke-ptp.conflist",
		"/usr/lib/x86_64-linux-gnu/security/pam_unix.so", "/usr/lib64/security/pam_unix.so", "/usr/lib/security/pam_unix.so",
	}, func(p string) bool { return !re.MatchString(p) })
}

// reaches reports whether one of watched is asked, or a folder above it, or, of a beginning, something that begins so.
func reaches(watched []string, asked string) bool {
	return slices.ContainsFunc(watched, func(w string) bool {
		for p := strings.TrimSuffix(asked, "/"); p != "/" && p != "."; p = path.Dir(p) {
			if ok, _ := path.Match(w, p); ok {
				return true
			}
		}
		return strings.HasPrefix(w, asked)
	})
}

// What rules know by its end alone is in the homes.
func TestDefaultsReachTheHomes(t *testing.T) {
	for _, home := range []string{"/root", "/home/bob"} {
		for name := range strings.FieldsSeq(`.ssh/authorized_keys .ssh/authorized_keys2 .bashrc .bash_profile .bash_login .profile .bash_logout
			.zshrc .zprofile .zshenv .zlogin .bash_aliases .config/systemd/user/x.service`) {
			if !reaches(file.DefaultPaths(), home+"/"+name) {
				t.Errorf("%s of %s is not watched", name, home)
			}
		}
		if reaches(file.DefaultPaths(), home+"/.bash_history") {
			t.Errorf("the history of %s is watched: every shell writes it", home)
		}
	}
}
