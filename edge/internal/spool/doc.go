// Package spool keeps sealed messages on disk until they are confirmed.
//
// A spool is a folder of segment files. Append writes a record at the end of the newest segment; Next hands out what is
// not confirmed, oldest first; Confirm overwrites the record's state byte in place, and a segment whose records are all
// confirmed is removed. A process that is killed at any moment finds, when it opens the folder again, exactly what was
// appended and not confirmed.
//
// Promises
//
//   - What Append accepted survives the death of the process: it is in the page cache. The death of the machine may cost
//     the last seconds, as the kernel writes back when it sees fit; with Sync each record is on the disk (fdatasync)
//     before Append returns. Confirmations are never synced: after the death of a machine some records come twice.
//   - A folder has one owner (flock); a second Open is [ErrLocked].
//   - The folder's size is bounded. When a record does not fit, the oldest segment is removed, and what was not yet
//     confirmed or handed out is counted as lost, in records, events and bytes.
//   - Memory does not grow with what waits: records are read back when they are due. Only what was just appended, and
//     only when nothing older waits, is handed on without reading (Fresh).
//   - Damage is contained: a torn record at the end of a segment is cut off, a corrupt one is skipped to the next that
//     has a valid header and checksum, and both are counted and said.
//   - A disk that does not take a record (full, read-only, gone) is an error of that Append, said once a minute; the next
//     Append tries again, so the spool heals when the disk does. A segment of which all is confirmed gives way first, so
//     that a disk smaller than a segment does not stay full of it.
//
// # Format
//
// A segment is named by its number, 16 hexadecimal digits and ".seg". It holds records without anything between them,
// little endian:
//
//	 0  magic "APS" and the version, 1
//	 4  state: 0 waits, 255 confirmed; not covered by a checksum, every other value means waits
//	 5  zero (3 bytes)
//	 8  events in the payload (4 bytes), for counting only
//	12  length of the payload (4 bytes)
//	16  CRC-32C of the payload
//	20  CRC-32C of the bytes 0-3 and 5-19
//	24  payload
//
// The header has a checksum of its own so that looking for the next record after damage costs one short sum for each
// candidate, whatever lengths the damage pretends.
package spool
