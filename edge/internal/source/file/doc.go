// Package file is the file sensor: it reports what becomes of the files and folders under the watched paths.
//
// It wakes on the kernel's inotify events through fsnotify. Those say neither who, nor what, nor when a write ended, so
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
//     never swallows them.
//   - A first start, a new watched path and a state file that cannot be read make a new baseline without events.
//   - What shows in a diff has gone through Config.Redact; shadow files, keys, tokens and the like (secretPath) show
//     their hashes alone. The texts that are kept for it are in memory only, and redacted already.
//   - FIFOs, sockets and devices are never opened. Names are passed on byte for byte.
//
// Metadata of its events: "kind" of what is no regular file; "renamed_from"; "replaced" when another inode took the
// name of a known file; "links" of a file with more than one hard link and "link_names", the others that are
// known; "link_target" and "previous_link_target" of a
// symlink or of a watched path that is reached through one; "rescan" or "while_down" with "changed_at", the inode's
// change time.
//
// A diff is of a text of at most Limits.DiffSize bytes with one hard link; its last line tells what did not fit. It is
// missing where the texts would exceed Limits.DiffMemory or change faster than they can be compared.
//
// Limits: what happens to one path within the settle time is one change, and a file that is created and deleted within
// it is only counted (Stats.Transient). A write through a hard link outside the watched paths or through a memory
// mapping raises no inotify event; the periodic rescan finds it. Content is hashed up to Limits.HashSize at
// Limits.HashRate; beyond, size and times decide. Network and FUSE file systems do not tell of changes made by others
// (inotify(7)), and one that hangs stalls the sensor.
package file
