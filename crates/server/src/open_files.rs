//! The system's limit on open files, and what of it is left for connections.
//!
//! Owns: raising the limit, the share that is kept for everything else. Does not own: what is done with a
//! connection too many (see `shard::accept`), the files of the log (see `store`). Start reading at
//! [`connections_room`]. Invariant: the log is opened after [`raise`], since it keeps a file for each segment.

use crate::shard::REFUSALS_MAX;

/// Raises the limit as far as the system lets us; returns what it is.
pub(crate) fn raise() -> usize {
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(OPEN_FILES_GUESS);
    usize::try_from(open_files).unwrap_or(usize::MAX)
}

/// What has files open beside connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others {
    pub(crate) shard_count: u16,
    /// Files of the log that are open now.
    pub(crate) segments: usize,
    /// Questions to other machines that may be under way at once.
    pub(crate) questions: usize,
}

/// As many connections as the limit has room for, of which each may take `files_each`, beside those that are only told
/// that there is no room, and `others`. Says so where that is few of what is `configured`.
pub(crate) fn connections_room(configured: usize, files_each: usize, others: Others) -> usize {
    let open_files = raise();
    let room = room(open_files, files_each, others);
    let segments = others.segments;
    if segments > open_files / 2 {
        tracing::warn!(
            reason = %format_args!("{segments} of {open_files}"),
            "the log has most of the files open that the limit on open files allows"
        );
    }
    if room < configured.min(CONNECTIONS_EXPECTED) {
        tracing::warn!(
            reason = %format_args!("{room} at most"),
            "the limit on open files allows few connections"
        );
    }
    room
}

/// Clients over the limit that may be told so at the same time: where there are few files, few are spent on that.
pub(crate) fn refusals_max(files_each: usize, others: Others) -> usize {
    let room = room(raise(), files_each, others);
    REFUSALS_MAX.min(room.div_ceil(4))
}

fn room(open_files: usize, files_each: usize, others: Others) -> usize {
    let Others {
        shard_count,
        segments,
        questions,
    } = others;
    // A log that has no file for its next segment ends the Server; a connection too many is refused.
    let of_log = match segments {
        0 => 0,
        segments => segments.max(SEGMENTS_MORE),
    };
    let refusals = REFUSALS_MAX * files_each;
    let of_shards = 4 * usize::from(shard_count);
    let reserved = OPEN_FILES_RESERVED + of_shards + refusals + of_log + questions;
    let left = open_files.saturating_sub(segments);
    let files = left.saturating_sub(reserved.min(left / 2));
    (files / files_each.max(1)).max(1)
}

/// Assumed where the system does not say.
const OPEN_FILES_GUESS: u64 = 1024;
/// Open files kept for everything that is neither a connection nor a segment.
const OPEN_FILES_RESERVED: usize = 64;
/// The log may grow by so many segments, or to twice its size.
const SEGMENTS_MORE: usize = 64;
/// Fewer connections than these are worth a warning.
const CONNECTIONS_EXPECTED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn room_of(open_files: usize, segments: usize, files_each: usize) -> usize {
        let others = Others {
            shard_count: 4,
            segments,
            questions: 0,
        };
        room(open_files, files_each, others)
    }

    #[test]
    fn connections_leave_the_log_the_files_it_has_and_room_to_grow() {
        let without = room_of(100_000, 0, 1);
        assert_eq!(room_of(100_000, 1, 1), without - 1 - SEGMENTS_MORE);
        assert_eq!(room_of(100_000, 3000, 1), without - 6000);
        // However little there is, some connections are served.
        assert_eq!(room_of(1024, 1000, 1), 12);
        assert_eq!(room_of(1024, 2000, 1), 1);
    }

    #[test]
    fn connections_that_take_two_files_are_half_as_many() {
        let one = room_of(100_000, 3000, 1);
        let two = room_of(100_000, 3000, 2);
        assert_eq!(two, (one - REFUSALS_MAX) / 2);
        assert_eq!(room_of(1024, 2000, 2), 1);
    }

    #[test]
    fn connections_leave_questions_to_other_machines_their_sockets() {
        let others = |questions| Others {
            shard_count: 4,
            segments: 3,
            questions,
        };
        let without = room(10_000, 1, others(0));
        assert_eq!(room(10_000, 1, others(200)), without - 200);
        // Whatever is asked for, half of the files are for connections.
        assert_eq!(room(10_000, 1, others(1_000_000)), 4999);
    }
}
