package file

// DefaultPaths are the files and folders whose change gives access, keeps it or hides it, the most important first. They
// are those that the rules of shared/detect/rules ask about, as far as they cost little: some 2,000 files at most on a
// node, 200 in a container.
func DefaultPaths() []string {
	return []string{
		// who may log in, and as whom
		"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/ld.so.preload",
		"/root/.ssh", "/home/*/.ssh", "/etc/pam.d", "/etc/ssh", "/etc/security/opasswd", "/etc/nsswitch.conf",
		// what starts by itself
		"/etc/crontab", "/etc/anacrontab", "/etc/cron.*", "/var/spool/cron", "/etc/systemd/system", "/etc/systemd/user",
		"/run/systemd/system", "/usr/local/lib/systemd/system", "/etc/init.d", "/etc/rc.local", "/etc/rc.d",
		"/etc/xdg/autostart", "/etc/udev/rules.d", "/home/*/.config/systemd/user", "/root/.config/systemd/user",
		// what shells and the loader read
		"/etc/profile", "/etc/profile.d", "/etc/bash.bashrc", "/etc/bashrc", "/etc/bash.bash_logout", "/etc/environment", "/etc/zsh",
		"/root/.bashrc", "/root/.bash_[alp]*", "/root/.profile", "/root/.zsh[er]*", "/root/.z[lp]*", "/home/*/.bashrc", "/home/*/.bash_[alp]*", "/home/*/.profile",
		"/home/*/.zsh[er]*", "/home/*/.z[lp]*", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
		// what runs pods
		"/etc/kubernetes/manifests", "/etc/kubernetes/manifest", "/etc/kubelet.d", "/etc/cni/net.d", "/opt/cni/bin",
		"/home/kubernetes/bin", "/usr/bin/runc", "/usr/bin/crun", "/usr/bin/containerd*", "/usr/bin/dockerd", "/usr/bin/docker-init",
		"/usr/bin/kubelet", "/usr/bin/crio", "/usr/bin/conmon", "/usr/bin/ctr", "/usr/bin/crictl",
		// many files, changed by packages mostly
		"/usr/lib/*-linux-gnu/security", "/usr/lib64/security", "/usr/lib/security", "/usr/lib/systemd/system",
	}
}

// DefaultLogs are the logs that tell who logged in and what the system did, and what logrotate(8) makes of them.
func DefaultLogs() []string {
	return []string{
		"/var/log/auth.log*", "/var/log/secure*", "/var/log/syslog*", "/var/log/messages*", "/var/log/wtmp*", "/var/log/btmp*",
		"/var/log/lastlog", "/var/log/audit/audit.log*", "/var/log/kern.log*", "/var/log/cron*", "/run/utmp",
	}
}

// DefaultReadPaths are what reading gives credentials away: password hashes, ssh keys, service account tokens and the
// clouds' credentials.
func DefaultReadPaths() []string {
	return []string{
		"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/root/.ssh", "/home/*/.ssh",
		"/var/run/secrets/kubernetes.io/serviceaccount/token",
		"/var/run/secrets/eks.amazonaws.com/serviceaccount/token", "/var/run/secrets/azure/tokens",
		"/root/.aws", "/home/*/.aws", "/root/.azure", "/home/*/.azure", "/root/.kube", "/home/*/.kube",
		"/root/.config/gcloud", "/home/*/.config/gcloud", "/root/.docker/config.json", "/home/*/.docker/config.json",
	}
}
