// Package detect compiles Sigma rules and matches events against them, where the events are born.
//
// [Parse] reads Sigma 2.1 documents: rules, correlation rules, filters, and Sigma 1's collections; and exceptions. [Compile] makes a [Set]
// of any number of them, once; a [Matcher] evaluates the set for one event after another; a [Correlator] takes the
// matches and evaluates the correlation rules.
//
//	rules, errs := detect.Parse("pack.yml", data)      // every fault with file, rule, line and what to write instead
//	set, errs := detect.Compile(rules, detect.Options{})
//	matcher, correlator := set.NewMatcher(), set.NewCorrelator(detect.CorrelatorOptions{})
//	matches = matcher.Match(e, matches[:0])
//	found = correlator.Add(e.Timestamp, e, matches, found[:0])
//
// # Promises
//
// A bad document never stops the others. Matching reflects nothing and allocates nothing when no rule matches. What the
// engine answers is what evaluating every rule plainly would: the tests hold it against such an evaluator with generated
// rules and events. Matcher and Correlator have bounded memory; the correlator counts what it had to forget.
//
// # What rules see
//
// A logsource names the events a rule is about: category process_creation, process_termination, file_event, file_change,
// file_access, network_connection, admission, agent, or any event type's own name (file_delete, network_listen, ...);
// service auditd stands for the records EXECVE, SYSCALL (of execve) and PATH. Products other than linux, kubernetes and
// none have no events here.
//
// Fields have Sigma's names (Image, CommandLine, TargetFilename, DestinationIp, ...) or those of the event's JSON
// (process.exe, process.ancestors.exe, file.previous.mode, metadata.KEY, ...), with process.name, process.parent.name,
// process.ancestors.name, file.name, process.args.N and network.initiated beside them. The names are of programs: sh and
// not busybox, and what the command line says where the executable cannot be read. A field that Sigma knows and no sensor
// fills (DestinationHostname, Hashes, ...) never has a value; [Rule.Coverage] says what that does to a rule.
//
// # Where the specification leaves a choice
//
//   - Letters' case is ignored by Unicode simple folding, as strings.EqualFold does. Numbers compare as their decimal text.
//   - The contract does not tell empty from unknown: a field that is absent, null or empty has no value. Then null, the
//     empty text and exists: false hold, and every other comparison is false; neq, being a negation, is true.
//   - A list field (process.args, process.ancestors.exe) matches when one of its values does. Unknown ids, port 0 and
//     the numbers of an unreadable file are no values.
//   - Keywords are found anywhere in the texts of process, file, network, container, pod, workload and metadata.
//   - Regular expressions are RE2, found anywhere in the value, and mind case.
//   - windash varies the dash that starts a word, as the reference implementation does.
//   - A filter's condition states what is excluded, or, made only of negations, what is kept. One that names a correlation
//     is for the rules that exist only to feed it.
//   - "N of" takes any N that can be.
//   - A correlation's window slides and a match uses it up; see [Correlator]. Rules of the correlation's own file make no
//     alerts of their own unless it says generate: true; those of other files do.
//
// # Our keys
//
// A rule may have the key apss with two lists: actions, what the reader of its alert should do, and group-by, the fields
// whose values tell one incident from another.
//
//	apss:
//	    actions: [Isolate the pod, Rotate the service account's token]
//	    group-by: [process.exe]
//
// # Exceptions
//
// What a rule should not say is said beside it, by Sigma's filters or, more simply, by a document that is a list:
//
//	exceptions:
//	  - rules: [APSS-038]
//	    namespaces: [vault]
//	    exes: [/usr/bin/curl]
//	    expires: 2027-06-30
//	    reason: The agent's start script logs in with curl.
//
// An exception holds for the rules it names by id or name (or any), for an event that fits every place it names:
// namespaces, workloads (Kind/name), images, exes (the process's), paths (the file's), addresses (the other side's). One
// value of each is enough. They mind case; * stands for anything but a slash, ** for anything, ? for one character. After
// the day it expires, by the events' time, it holds no more. everywhere: true, instead of places, switches the rules off.
// Filters and exceptions are asked only of rules that match: other events do not pay for them.
//
// # Limits
//
// A file has at most [MaxFile] bytes. Regular expressions with lookaround, backreferences or possessive quantifiers,
// aggregations with a pipe, YAML merge keys, and the correlation types value_sum, value_avg and value_percentile are
// refused with what to write instead.
package detect
