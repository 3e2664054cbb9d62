//! What a Network Connection has still to send, and the pool its buffers come from.
//!
//! Owns: [`Unsent`], [`BufferPool`]. Does not own: the socket, who asked for it.
//! Start reading at [`Unsent::write_to`]. Invariant: bytes leave in the order they were put in, and
//! an idle connection holds no buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use proto::Message;

/// Bytes that wait for the socket: small ones copied into one buffer, large payloads shared.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    own: Vec<u8>,
    own_sent: usize,
    /// There while there are some: most messages are small.
    shared: Option<Box<SharedQueue>>,
}

#[derive(Debug, Default)]
struct SharedQueue {
    pieces: VecDeque<Shared>,
    bytes: usize,
}

/// A payload that follows when the first `after` bytes of `own` are written.
#[derive(Debug)]
struct Shared {
    after: usize,
    bytes: Bytes,
    /// Whose payload it is: as long as that is here, it is counted, once for all who wait for it.
    _of: Arc<Message>,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing is left.
    All,
    /// The socket takes no more; it will say when it does.
    Blocked,
}

impl Unsent {
    /// Bytes not yet written.
    pub(super) fn len(&self) -> usize {
        self.own_len() + self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// Those of them that are held for this connection alone.
    pub(super) const fn own_len(&self) -> usize {
        self.own.len() - self.own_sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of the buffer, to append packets to.
    pub(super) const fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends `payload` without copying it.
    pub(super) fn push_shared(&mut self, payload: Bytes, of: Arc<Message>) {
        let after = self.own.len();
        let shared = self.shared.get_or_insert_default();
        shared.bytes += payload.len();
        shared.pieces.push_back(Shared {
            after,
            bytes: payload,
            _of: of,
        });
    }

    /// Bytes that it holds for this connection alone.
    pub(super) fn table_bytes(&self) -> usize {
        let of_shared = self.shared.as_ref().map_or(0, |shared| {
            size_of::<SharedQueue>() + shared.pieces.capacity() * size_of::<Shared>()
        });
        self.own.capacity() + of_shared
    }

    /// Takes a buffer from `pool` if there is none, and a larger one if it is likely to need one.
    pub(super) fn borrow_from(&mut self, pool: &mut BufferPool) {
        let capacity = self.own.capacity();
        if capacity == 0 {
            self.own = pool.take();
        } else if capacity <= BUFFER_BYTES_SMALL && self.own.len() > capacity / 2 {
            pool.exchange(&mut self.own);
        }
    }

    /// Gives the buffer back to `pool`; what is unsent is lost.
    pub(super) fn return_to(&mut self, pool: &mut BufferPool) {
        self.own_sent = 0;
        self.shared = None;
        pool.put(std::mem::take(&mut self.own));
    }

    /// Writes until nothing is left or the socket takes no more.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        while !self.is_empty() {
            let (wanted, written) = self.write_once(socket);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.advance(written);
                    if written < wanted {
                        return Ok(Written::Blocked);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    /// One system call; returns the bytes it was given and what came of it.
    fn write_once(&self, socket: &mut impl Write) -> (usize, io::Result<usize>) {
        let Some(shared) = &self.shared else {
            let rest = self.own.get(self.own_sent..).unwrap_or_default();
            return (rest.len(), socket.write(rest));
        };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut wanted = 0;
        for piece in self
            .pieces(&shared.pieces)
            .filter(|piece| !piece.is_empty())
        {
            let Some(slot) = slices.get_mut(count) else {
                break;
            };
            *slot = IoSlice::new(piece);
            count += 1;
            wanted += piece.len();
        }
        let slices = slices.get(..count).unwrap_or_default();
        (wanted, socket.write_vectored(slices))
    }

    /// What is unsent, in order.
    fn pieces<'a>(&'a self, shared: &'a VecDeque<Shared>) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(self.own_sent).chain(shared.iter().map(|s| s.after));
        let ends = shared
            .iter()
            .map(|s| s.after)
            .chain(std::iter::once(self.own.len()));
        let own = starts
            .zip(ends)
            .map(|(from, to)| self.own.get(from..to).unwrap_or_default());
        let shared = shared
            .iter()
            .map(|s| &s.bytes[..])
            .chain(std::iter::once(&[][..]));
        own.zip(shared).flat_map(|(own, shared)| [own, shared])
    }

    fn advance(&mut self, mut written: usize) {
        let Some(shared) = &mut self.shared else {
            self.own_sent += written;
            return self.forget_sent();
        };
        while written > 0 {
            let next = shared.pieces.front_mut();
            let own_end = next.as_ref().map_or(self.own.len(), |piece| piece.after);
            let own = written.min(own_end - self.own_sent);
            self.own_sent += own;
            written -= own;
            let Some(next) = next else { break };
            let of_it = written.min(next.bytes.len());
            next.bytes.advance(of_it);
            shared.bytes -= of_it;
            written -= of_it;
            if next.bytes.is_empty() && self.own_sent == next.after {
                shared.pieces.pop_front();
            }
        }
        if shared.pieces.is_empty() {
            self.shared = None;
        }
        self.forget_sent();
    }

    /// Moves the rest to the front once that is cheaper than to keep what was sent.
    fn forget_sent(&mut self) {
        if self.own_sent < COMPACT_BYTES_MIN || self.own_sent * 2 < self.own.len() {
            return;
        }
        let sent = std::mem::take(&mut self.own_sent);
        self.own.drain(..sent);
        for piece in self.shared.iter_mut().flat_map(|shared| &mut shared.pieces) {
            piece.after -= sent;
        }
    }
}

/// Empty buffers that wait for the next connection with something to say.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    /// Every connection begins with one of these: acknowledgements need no more.
    small: Stack,
    /// Those that have grown, for who has more to say: else theirs would have to grow, too.
    large: Stack,
    /// The capacity of all.
    bytes: usize,
}

/// Buffers of one kind.
#[derive(Debug, Default)]
struct Stack {
    buffers: Vec<Vec<u8>>,
    /// The fewest there were lately: so many were not needed.
    fewest: usize,
}

impl Stack {
    fn pop(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop();
        self.fewest = self.fewest.min(self.buffers.len());
        buffer
    }
}

impl BufferPool {
    /// Bytes that it holds.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> Vec<u8> {
        let Some(buffer) = self.small.pop() else {
            return Vec::with_capacity(BUFFER_BYTES_NEW);
        };
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Gives a larger buffer for a small one, with what is in it, if there is one.
    fn exchange(&mut self, own: &mut Vec<u8>) {
        if let Some(mut larger) = self.large.pop() {
            self.bytes -= larger.capacity();
            larger.extend_from_slice(own);
            self.put(std::mem::replace(own, larger));
        }
    }

    fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let keeps = (1..=BUFFER_BYTES_KEPT).contains(&capacity);
        if keeps && self.bytes + capacity <= POOL_BYTES_MAX {
            buffer.clear();
            self.bytes += capacity;
            let stack = if capacity <= BUFFER_BYTES_SMALL {
                &mut self.small
            } else {
                &mut self.large
            };
            stack.buffers.push(buffer);
        }
    }

    /// Called now and then: gives back what nobody has wanted since the last time.
    pub(super) fn trim(&mut self) {
        for stack in [&mut self.small, &mut self.large] {
            let unneeded = stack.buffers.drain(..stack.fewest);
            self.bytes -= unneeded.map(|buffer| buffer.capacity()).sum::<usize>();
            stack.buffers.shrink_to(stack.buffers.len() * 2);
            stack.fewest = stack.buffers.len();
        }
    }
}

/// Pieces given to one vectored write.
const SLICES_MAX: usize = 64;
/// Sent bytes at the front of a buffer that are kept at least before the rest is moved.
const COMPACT_BYTES_MIN: usize = 64 * 1024;
/// Capacity of a new buffer.
const BUFFER_BYTES_NEW: usize = 512;
/// Largest capacity the pool keeps.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;
/// Capacity above which a buffer is not lent to who has said nothing yet.
const BUFFER_BYTES_SMALL: usize = 16 * 1024;
/// Most bytes the buffers of the pool have together.
const POOL_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Arc<Message> {
        let now = std::time::Instant::now();
        let qos = proto::Qos::AtMostOnce;
        Arc::new(Message::new("a", Bytes::new(), qos, false, now))
    }

    /// Takes at most `quota` bytes in all and `step` in one write.
    struct Narrow {
        taken: Vec<u8>,
        step: usize,
        quota: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes
                .len()
                .min(self.step)
                .min(self.quota - self.taken.len());
            if len == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_leave_in_order_however_little_the_socket_takes() {
        for step in 1..40 {
            let mut unsent = Unsent::default();
            unsent.tail().extend_from_slice(b"head-1 ");
            unsent.push_shared(Bytes::from_static(b"shared-1 "), message());
            unsent.tail().extend_from_slice(b"head-2 ");
            unsent.push_shared(Bytes::from_static(b"shared-2 "), message());
            unsent.push_shared(Bytes::from_static(b"shared-3 "), message());
            unsent.tail().extend_from_slice(b"tail");
            let mut socket = Narrow {
                taken: Vec::new(),
                step,
                quota: 1000,
            };
            while unsent.write_to(&mut socket).expect("takes") == Written::Blocked {}
            assert_eq!(
                socket.taken,
                b"head-1 shared-1 head-2 shared-2 shared-3 tail"
            );
            assert_eq!(unsent.len(), 0);
        }
    }

    fn held(pool: &BufferPool) -> usize {
        let all = pool.small.buffers.iter().chain(&pool.large.buffers);
        all.map(Vec::capacity).sum()
    }

    #[test]
    fn pool_keeps_some_megabytes_and_counts_them() {
        let mut pool = BufferPool::default();
        for capacity in [64 * 1024, BUFFER_BYTES_KEPT, 2 * BUFFER_BYTES_KEPT, 0] {
            for _ in 0..400 {
                pool.put(Vec::with_capacity(capacity));
            }
        }
        assert_eq!(pool.bytes(), held(&pool));
        assert!((POOL_BYTES_MAX / 2..=POOL_BYTES_MAX).contains(&pool.bytes()));
        let larger = std::iter::from_fn(|| pool.large.pop()).count();
        assert!(larger > 100, "{larger}");
        assert_eq!(pool.take().capacity(), BUFFER_BYTES_NEW);
    }

    #[test]
    fn large_buffer_is_lent_to_who_has_much_to_say_and_to_nobody_else() {
        let mut pool = BufferPool::default();
        pool.put(Vec::with_capacity(600));
        pool.put(Vec::with_capacity(100_000));
        let (mut one, mut other) = (Unsent::default(), Unsent::default());
        one.borrow_from(&mut pool);
        other.borrow_from(&mut pool);
        assert_eq!((one.own.capacity(), other.own.capacity()), (600, 512));
        one.tail().extend_from_slice(&[1; 300]);
        one.borrow_from(&mut pool);
        assert_eq!(one.own.capacity(), 600);
        one.tail().push(2);
        one.borrow_from(&mut pool);
        assert_eq!(
            (one.own.capacity(), one.own.len(), one.own.last()),
            (100_000, 301, Some(&2))
        );
        assert_eq!((pool.bytes(), held(&pool)), (600, 600));
        // There is no other.
        other.tail().extend_from_slice(&[1; 500]);
        other.borrow_from(&mut pool);
        assert_eq!(other.own.capacity(), 512);
    }

    #[test]
    fn what_nobody_has_wanted_for_a_while_is_given_back() {
        let mut pool = BufferPool::default();
        for _ in 0..10 {
            pool.put(Vec::with_capacity(4000));
        }
        pool.trim();
        assert_eq!(held(&pool), 40_000, "they have just come");
        let taken: Vec<_> = (0..3).map(|_| pool.take()).collect();
        for buffer in taken {
            pool.put(buffer);
        }
        pool.trim();
        assert_eq!((pool.bytes(), held(&pool)), (12_000, 12_000));
        pool.trim();
        assert_eq!((pool.bytes(), held(&pool)), (0, 0));
    }

    #[test]
    fn rest_is_kept_when_the_socket_takes_no_more() {
        let mut unsent = Unsent::default();
        unsent.tail().extend_from_slice(&vec![7; 200_000]);
        let mut socket = Narrow {
            taken: Vec::new(),
            step: 1 << 20,
            quota: 150_000,
        };
        assert_eq!(
            unsent.write_to(&mut socket).expect("takes"),
            Written::Blocked
        );
        assert_eq!((unsent.len(), unsent.own.len()), (50_000, 50_000));
    }
}
