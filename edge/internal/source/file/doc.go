// Package file is the file sensor: it reports what becomes of the files and folders under the watched paths.
//
// It also tells who may have done it, shows what changed in small texts, and tells who opens what is secret.
//
// It wakes on the kernel's inotify events. Those say neither who, nor what, nor when a write ended, so
// each is only a hint: the sensor lets a path come to rest, takes its state (stat, and a SHA-256 of its content), and
// reports in what it differs from the baseline, its own record of every file. A change of content is one file_modify
// and not one per write; a touch that leaves content, mode and owner as they were is no event.
//
// Promises:
//
//   - When things have come to rest the baseline equals the tree, and the last state of every file has been emitted,
//     whether the kernel told of it or not: a queue overflow, a folder that no watch was left for and a change made
//     while the agent was down are found by comparing the tree with the baseline. Such events carry the metadata
//     "rescan" or "while_down".
//   - A state reaches the state file only after the events that led to it are durable. A crash repeats events, it
//     never swallows them. It is saved every 200 ms, right after a seal: of changes told before a kill -9 none was told
//     again in 17 of 20 trials at 200 and 1,500 changes a second, 1, 1 and 99 in the others.
//   - A first start, a new watched path and a state file that cannot be read make a new baseline without events.
//   - What shows in a diff has gone through Config.Redact; shadow files, keys, tokens and the like (secretPath) show
//     their hashes alone. The texts that are kept for it are in memory only, and redacted already.
//   - FIFOs, sockets and devices are never opened. Names are passed on byte for byte.
//
// A file system that is mounted over what is watched, or taken away, is a change of every name that it hides or shows.
// Such events carry the metadata "remount", and the folder that it is mounted on has a file_modify of its own. In the
// agent's own mount namespace the kernel tells at once; in a container's it is found within Config.Poll.
//
// Metadata of its events: "kind" of what is no regular file; "renamed_from", with "exchanged" where files
// took each other's names, so that the old one is not free; "replaced" when another inode took the
// name of a known file; "links" of a file with more than one hard link and "link_names", the others that are known;
// "link_target" and "previous_link_target" of a symlink or of a watched path that is reached through one; "rescan",
// "while_down" or "remount" with "changed_at", the inode's change time.
//
// A diff is of a text of at most Limits.DiffSize bytes with one hard link; its last line tells what did not fit. It is
// missing where the texts would exceed Limits.DiffMemory or change faster than they can be compared.
//
// Writers are candidates. The kernel tells that a file changes and not who does it, so as soon as it tells, the sensor
// searches /proc/PID/fd for who has the file open, and at the event weighs what Config.Recent knows:
//
//	0.9  had the file open for writing, alone          0.6  the same, with others
//	0.5  began within the second before; its command   0.4  the same within the minute before
//	     line names the path
//	0.3  began within the second before; its command   0.3  a package manager of the last minute, below /etc,
//	     line has the file's name or its folder             /usr and the like
//	0.2  began within the second before, in the file's folder
//
// What runs in a container is no candidate for a file of another, nor is what runs outside; for a file of the host, or of
// the agent's own container, it is one by 0.2 at most. Who has a file open is none for a chmod.
//
// A search takes longer than a short-lived process has a file open, so such are known by their command lines or not at
// all (BenchmarkCandidates); searches take 3 % of a core at most, and changes that come faster are looked into together.
//
// Reads of Config.ReadPaths are told as the kernel tells of open(2), by an inotify instance of its own: the first by a
// process in a minute at once, the others of that minute as one more event with "count" and "since". The sensor's own
// opens are left out, exactly, but that another's of the same file in the same microseconds is lost with ours (see
// reads), and so are those of ReadFile, by which the agent reads what it needs. That a file was opened is all that is known: an open to write counts, and the kernel makes one of equal opens
// that follow each other. A file that takes the place of another is watched some milliseconds later.
//
// Config.Logs are watched for what is not their daily work, and never read: a busy log would be hashed again and again.
//
// Containers that Config.Roots names are watched at the same paths, through /proc/PID/root of one of their processes.
// Their events have paths as the container sees them and the container's id. Those that share a root folder are one, and
// so is a container that is reached by another process than before. The end of a container is no deletion. Their
// baselines are in memory alone. A change in a volume that several containers have is told once for each, a read once.
//
// Limits: what happens to one path within the settle time is one change, and a file that is created and deleted within
// it is only counted (Stats.Transient). A write through a hard link outside the watched paths or through a memory
// mapping raises no inotify event; the periodic rescan finds it. Content is hashed up to Limits.HashSize at
// Limits.HashRate; beyond, size and times decide. Network and FUSE file systems do not tell of changes made by others
// (inotify(7)), and one that hangs stalls the sensor, reads aside, until it answers; the log and Stats name it.
package file
