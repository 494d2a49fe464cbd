// Package process is the sensor of processes: it watches procfs and emits a process_exec event for each program that
// starts and a process_exit event when one of those ends.
//
// How it learns that something started: by the first of these that works where the agent runs. It tries, and
// [Stats].Refused says why it does not use a better one.
//
//   - connector: the kernel announces every fork, exec and exit (package connector). A goroutine of its own reads each
//     program at the announcement, without waiting for anything.
//   - opens: inotify tells that executables and their loaders are opened (package opens), in each mount namespace that
//     may be looked into. A goroutine of its own then reads the newest pids at once. What it comes too late for gets an
//     event by name: the executable's path and nothing else, when its loader was opened right after it, or when the
//     cursor passed a pid that nothing else accounts for. Metadata "evidence" says which, "loader" or "pid"; the
//     second may be a file that was read while an unseen thread came and went.
//   - polling: the last field of /proc/loadavg is the newest pid that the kernel handed out. While that cursor stands
//     still no process was created and a scan costs one read of it. When it moves, the pids it passed are read, newest
//     first, because the newest are the likeliest to be gone soon.
//
// Once a second the pids are listed: what is missing has ended. Flags, start time and the address of the stack in
// /proc/PID/stat tell a fork that has not called execve yet from a program, a reused pid from the old process, and a
// program that replaced itself from one that renamed itself.
//
// Promises
//   - A process is reported once for each program it runs; a fork that runs no program of its own is not reported.
//   - All that one event says was read through one handle of /proc/PID, so a pid reused in between mixes nothing.
//   - What could not be read is empty or [event.UnknownID], and the event's capture says so.
//   - Processes that run when the sensor starts are a baseline: they name parents and make no events. Kernel threads,
//     the agent and what the agent starts make none either.
//   - Arguments and variables that look like credentials are replaced by a mark (package redact) before they are kept or
//     emitted. Of an environment only variables with the names of a list are shown.
//   - [Stats] bounds from above what was missed: pids handed out, less those that were read. With the connector it is
//     exact: what the kernel announced and did not arrive. An event by name takes one from what was missed.
//   - What others ask of it (Recent, Inhabitants, Process, Container) takes in what was gathered a moment ago, and is
//     bounded.
//   - A process that is gone before it can be read is emitted by pid, with its parent, when its exec was announced.
//
// Limits: polling misses most of what lives shorter than an interval; Stats.MissedAtMost says how many that may be.
// Threads take pids too, and one that ends before it is looked at counts as missed at most. So does a fork that was
// never seen running a program and ended, unless the kernel announces. Without the connector an exit is noticed within
// a second, and an exec of a running process within one second of its start and within four later on; where the
// stack's address may not be read (another user's process, without CAP_SYS_PTRACE) it is noticed only when both name
// and command line changed. An event by name waits up to 1.2 seconds for a look into every process, and has no pid.
// Variables are looked for in the first 32 KiB of an environment. Whether an argument of an interpreter names a file is
// looked up when the process may be read and still runs; otherwise a path is taken for one. User names come from the
// agent's own passwd file, also for processes in containers.
//
// What the kernel holds up for a second is not read again of that process: its command line and environment where its
// memory is locked, as while it maps a file of a server that hangs, and scripts and folders of executables on such a
// server. It is named in the log, and its events have neither; each such read keeps a thread until the kernel lets it go,
// and with 64 of them waiting none of that is read of any process.
//
// In metadata: exit_code or exit_signal of an exit, where the connector tells; script, the path of what an interpreter
// runs; env, a list of "NAME=value"; comm, cmdline_truncated, cmdline_held_up, redacted, stdio_socket, real_uid,
// previous_exe, evidence and seen_through_pid.
package process
