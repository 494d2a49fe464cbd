// Package opens notices programs being started by their files being opened: inotify(7) on the folders of executables, on
// program loaders and on the loader's cache. It needs no privilege but to read those folders.
//
// Each mount namespace in view is watched through /proc/PID/root of one of its processes; a folder that two share is
// watched once. Paths are as the processes there see them.
//
// What an open proves: execve opens the program and then, when the program is linked dynamically, its loader. Reading a
// file opens no loader. So an open of a program that an open of a loader follows in the same namespace is an execve
// ([Open].Proved); without that it may be a static program, a script, or somebody who reads the file.
//
// Limits: a namespace whose /proc/PID/root may not be read is not watched. Programs outside of the folders only show by
// their loaders. The number of watches is bounded here, and by fs.inotify.max_user_watches; [Stats] says what was
// refused.
package opens
