package file

import (
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What is likely to hold credentials, by the name of the file or of a folder above it, in lower case.
var (
	secretNames = map[string]bool{
		// shadow(5), gshadow(5), pam_unix(8), and the copies that shadow-utils leaves
		"shadow": true, "shadow-": true, "gshadow": true, "gshadow-": true, "opasswd": true,
		".netrc": true, ".pgpass": true, ".my.cnf": true, ".htpasswd": true, "htpasswd": true, ".npmrc": true, ".pypirc": true,
		".dockercfg": true, ".dockerconfigjson": true, ".docker": true, ".env": true,
		".aws": true, ".azure": true, "gcloud": true, ".kube": true, ".gnupg": true, ".password-store": true,
		"kubeconfig": true, "kubernetes.io": true, "serviceaccount": true, "private": true, "pki": true,
		"wireguard": true, "system-connections": true, "sa.json": true, "key.json": true,
	}
	secretParts    = []string{"secret", "token", "credential", "password", "passphrase", "keytab", "tfstate", "kubeconfig"}
	secretPrefixes = []string{"id_", ".env."}
	secretSuffixes = []string{
		".key", ".pem", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk", ".gpg", ".asc", ".ovpn", ".tfvars", "_key", "_history",
	}
	// sshOpen is what of a .ssh folder is no secret: sshd(8), ssh_config(5).
	sshOpen = []string{"authorized_keys", "authorized_keys2", "known_hosts", "config", "rc"}
)

// secretPath reports whether path is likely to hold credentials, or is named by one of patterns: those with a slash
// stand for the path or a folder above it, those without for the name of one of these.
func secretPath(path string, patterns []string) bool {
	prefix := 0
	inSSH := false
	for name := range components(path) {
		prefix += 1 + len(name)
		if secretName(strings.ToLower(name)) {
			return true
		}
		for _, p := range patterns {
			subject := name
			if strings.Contains(p, "/") {
				subject = path[:prefix]
			}
			if ok, _ := filepath.Match(p, subject); ok {
				return true
			}
		}
		if inSSH && prefix == len(path) {
			return !slices.Contains(sshOpen, name)
		}
		inSSH = inSSH || name == ".ssh"
	}
	kubernetes := strings.HasPrefix(path, "/etc/kubernetes/") && strings.HasSuffix(path, ".conf") // kubeadm's kubeconfigs
	return kubernetes
}

func secretName(name string) bool {
	has := func(f func(s, part string) bool) func(string) bool {
		return func(part string) bool { return f(name, part) }
	}
	return secretNames[name] || slices.ContainsFunc(secretParts, has(strings.Contains)) ||
		slices.ContainsFunc(secretPrefixes, has(strings.HasPrefix)) || slices.ContainsFunc(secretSuffixes, has(strings.HasSuffix))
}

// secretVolume reports whether place is in a volume that the kubelet writes from a Secret or a service account: their
// versions are folders whose names start with two dots (k8s.io/kubernetes pkg/volume/util/atomic_writer.go), and
// unlike those of a ConfigMap they are kept in memory (kubernetes.io/docs/concepts/configuration/secret).
func secretVolume(place string) bool {
	if !strings.Contains(place, "/..") {
		return false
	}
	var st unix.Statfs_t
	err := unix.Statfs(place, &st)
	return err != nil || st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
