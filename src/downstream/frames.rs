//! Inspector of the HTTP/2 frames that a client sends (RFC 9113 section 4.1). It finds how long a header
//! block has been arriving, how many requests have come, how many streams are reset, and which targets h2
//! alters before it hands them out. h2 limits the size of a header block, but not its time.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::time::{Duration, Instant};

use crate::downstream::header_block::HeaderBlocks;
use crate::transport::inspected::Inspector;

/// So many streams may a client reset in [`RESET_WINDOW`]: a player that seeks or a page that is left
/// resets dozens; "rapid reset" (CVE-2023-44487) thousands. h2 itself counts those only whose reset
/// comes before the request was handed out.
const RESETS: u32 = 200;
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// `PRI * HTTP/2.0…`, which precedes the first frame.
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// The bits of a stream's number; the first bit is reserved, and nobody reads it.
const STREAM_ID: u32 = 0x7fff_ffff;
/// Bytes of a priority, before a header block.
const PRIORITY_BYTES: usize = 5;

/// So many targets that h2 alters are remembered of a connection. After more no request of it is served.
const ALTERED: usize = 16;

/// Looks at what a client sends frame by frame.
#[derive(Debug)]
pub(super) struct FrameInspector {
    scanner: FrameScanner,
    findings: Rc<FrameFindings>,
    /// How many header blocks had begun.
    heads: u64,
    resets: u32,
    resets_since: Instant,
}

/// What a [`FrameInspector`] has found so far, for those who serve its connection.
#[derive(Debug, Default)]
pub(super) struct FrameFindings {
    head_since: Cell<Option<Instant>>,
    /// Heads that have come whole, and how many of them are requests or known to be refused.
    heads: Cell<u64>,
    settled: Cell<u64>,
    flooded: Cell<bool>,
    /// What h2 makes of the targets that it alters.
    altered: RefCell<Vec<String>>,
    /// There were too many of them, or a header block could not be read.
    lost: Cell<bool>,
}

impl FrameFindings {
    /// Whether `target`, as h2 hands it out, may have been another when it was sent. A frame is looked
    /// at before h2 gets it, so what a request's own block had is known here. It is not known
    /// which stream that was: any request of this connection for the same target is doubtful.
    pub(super) fn is_doubtful(&self, target: &str) -> bool {
        self.lost.get()
            || self
                .altered
                .borrow()
                .iter()
                .any(|altered| altered == target)
    }

    /// Whether any target is.
    pub(super) fn has_doubts(&self) -> bool {
        self.lost.get() || !self.altered.borrow().is_empty()
    }

    fn doubt(&self, targets: Vec<String>, lost: bool) {
        let mut altered = self.altered.borrow_mut();
        for target in targets {
            if !altered.contains(&target) && altered.len() < ALTERED {
                altered.push(target);
            } else if !altered.contains(&target) {
                self.lost.set(true);
            }
        }
        if lost {
            self.lost.set(true);
        }
    }

    /// Since when a header block has been arriving. Nothing else can arrive before it has ended.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// h2 has handed out a request.
    pub(super) fn note_request(&self) {
        self.settled.set(self.settled.get() + 1);
    }

    /// How many heads h2 has taken and not handed out, since it was last asked.
    pub(super) fn take_refused(&self) -> u64 {
        let refused = self.heads.get().saturating_sub(self.settled.get());
        self.settled.set(self.settled.get() + refused);
        refused
    }

    /// Whether the client reset so many streams that its connection was cut.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }
}

impl FrameInspector {
    /// Notes what it finds in `findings`.
    pub(super) fn new(findings: &Rc<FrameFindings>) -> Self {
        Self {
            scanner: FrameScanner::new(),
            findings: Rc::clone(findings),
            heads: 0,
            resets: 0,
            resets_since: Instant::now(),
        }
    }
}

impl Inspector for FrameInspector {
    fn inspect(&mut self, read: &[u8]) -> io::Result<()> {
        let resets = self.scanner.take(read);
        if self.scanner.is_lost || !self.scanner.altered.is_empty() {
            let altered = std::mem::take(&mut self.scanner.altered);
            self.findings.doubt(altered, self.scanner.is_lost);
        }
        // A read may end one block and begin the next: that one has all its time.
        if self.scanner.heads != self.heads
            || self.scanner.in_head != self.findings.head_since().is_some()
        {
            self.heads = self.scanner.heads;
            let since = self.scanner.in_head.then(Instant::now);
            self.findings.head_since.set(since);
        }
        self.findings.heads.set(self.scanner.requests);
        if resets == 0 {
            return Ok(());
        }
        if self.resets_since.elapsed() > RESET_WINDOW {
            self.resets = 0;
            self.resets_since = Instant::now();
        }
        self.resets = self.resets.saturating_add(resets);
        if self.resets > RESETS {
            self.findings.flooded.set(true);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Finds the frames among the bytes, and keeps nothing of them but the targets that h2 alters.
#[derive(Debug)]
struct FrameScanner {
    /// Bytes to come of the preface or of a frame's payload.
    payload: usize,
    /// The frame's head, and how much of it has come.
    head: [u8; 9],
    length: usize,
    /// Header blocks that have begun.
    heads: u64,
    /// Header blocks that have come whole, and opened a stream. Others are trailers.
    requests: u64,
    /// The newest stream, and the newest of those that are counted.
    newest: u32,
    counted: u32,
    /// A block is on its way.
    in_head: bool,
    /// It ends with this frame.
    is_last: bool,
    /// What stands in the frame before and of the block.
    fragment: Fragment,
    blocks: HeaderBlocks,
    altered: Vec<String>,
    /// A block could not be read: nothing is known of those after it.
    is_lost: bool,
}

/// How much is to come of a frame with a part of a header block in it (RFC 9113 section 6.2).
#[derive(Clone, Copy, Debug, Default)]
struct Fragment {
    /// The first byte is the length of the padding at the end.
    is_padded: bool,
    /// Bytes before the block.
    before: usize,
    /// Bytes of the block, and as long as that length is not known of the padding.
    block: usize,
}

impl FrameScanner {
    fn new() -> Self {
        Self {
            payload: PREFACE,
            head: [0; 9],
            length: 0,
            heads: 0,
            requests: 0,
            newest: 0,
            counted: 0,
            in_head: false,
            is_last: false,
            fragment: Fragment::default(),
            blocks: HeaderBlocks::default(),
            altered: Vec::new(),
            is_lost: false,
        }
    }

    /// Looks at `bytes`; how many streams they reset.
    fn take(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        loop {
            let here = self.payload.min(bytes.len());
            let (piece, rest) = bytes.split_at(here);
            self.read_block(piece);
            self.payload -= here;
            bytes = rest;
            if self.payload == 0 && self.is_last {
                self.in_head = false;
                self.is_last = false;
                self.requests += u64::from(self.newest > self.counted);
                self.counted = self.newest;
                self.is_lost |= self.blocks.end().is_err();
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return resets;
            };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
            if self.length == self.head.len() {
                self.length = 0;
                resets += self.begin_frame();
            }
        }
    }

    /// Reads what `piece`, the next of a frame's payload, holds of a header block.
    fn read_block(&mut self, mut piece: &[u8]) {
        if self.fragment.is_padded
            && let Some((&padding, rest)) = piece.split_first()
        {
            piece = rest;
            self.fragment.is_padded = false;
            let block = self.fragment.block.checked_sub(1 + usize::from(padding));
            self.is_lost |= block.is_none();
            self.fragment.block = block.unwrap_or(0);
        }
        let skipped = self.fragment.before.min(piece.len());
        self.fragment.before -= skipped;
        piece = piece.get(skipped..).unwrap_or_default();
        piece = piece.get(..self.fragment.block).unwrap_or(piece);
        self.fragment.block -= piece.len();
        if !self.is_lost && !piece.is_empty() {
            let taken = self.blocks.take(piece, |target| self.altered.push(target));
            self.is_lost |= taken.is_err();
        }
    }

    fn begin_frame(&mut self) -> u32 {
        let [a, b, c, kind, flags, id @ ..] = self.head;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_head = true;
            self.is_last = flags & END_HEADERS != 0;
            self.heads += u64::from(kind == HEADERS);
            let is_first = kind == HEADERS;
            if is_first {
                let stream = u32::from_be_bytes(id) & STREAM_ID;
                self.newest = self.newest.max(stream);
            }
            let has_priority = is_first && flags & PRIORITY != 0;
            let before = if has_priority { PRIORITY_BYTES } else { 0 };
            let block = self.payload.checked_sub(before);
            self.is_lost |= block.is_none();
            self.fragment = Fragment {
                is_padded: is_first && flags & PADDED != 0,
                before,
                block: block.unwrap_or(0),
            };
        }
        u32::from(kind == RST_STREAM)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + usize::from(length), 7);
        frame
    }

    #[test]
    fn a_header_block_lasts_from_its_first_frame_to_the_end_of_its_last() {
        let mut scanner = FrameScanner::new();
        scanner.take(&[b'P'; PREFACE]);
        scanner.take(&frame(0, END_HEADERS, 200));
        assert!(!scanner.in_head);
        scanner.take(&frame(HEADERS, 0, 3));
        assert!(scanner.in_head);
        let last = frame(CONTINUATION, END_HEADERS, 2);
        scanner.take(&last[..10]);
        assert!(scanner.in_head);
        scanner.take(&last[10..]);
        assert!(!scanner.in_head);
        scanner.take(&frame(HEADERS, END_HEADERS, 0));
        assert!(!scanner.in_head);
    }

    /// A frame of a header block.
    fn block(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_target_is_read_wherever_its_block_is_split_and_whatever_surrounds_it() {
        let mut fields = vec![0x82, 0x44];
        crate::downstream::header_block::tests::text(&mut fields, b"/b/hash#frag", true);
        fields.push(0x87);
        for at in 0..=fields.len() {
            let (a, b) = fields.split_at(at);
            let padded = [&[3, 0, 0, 0, 0, 9][..], a, &[0; 3]].concat();
            let plain = [block(HEADERS, 0, a), block(CONTINUATION, END_HEADERS, b)].concat();
            let padded = [
                block(HEADERS, PADDED | PRIORITY, &padded),
                block(CONTINUATION, END_HEADERS | PADDED | PRIORITY, b),
            ]
            .concat();
            for frames in [plain, padded] {
                let all = [&[b'P'; PREFACE][..], &frame(0, 0, 9), &frames].concat();
                let mut scanner = FrameScanner::new();
                for byte in all.chunks(1) {
                    scanner.take(byte);
                }
                assert_eq!(scanner.altered, ["/b/hash"], "{at}");
                assert!(!scanner.is_lost && !scanner.in_head);
            }
        }
    }

    #[test]
    fn a_request_is_the_first_header_block_of_a_stream() {
        let mut scanner = FrameScanner::new();
        let of = |stream, mut frame: Vec<u8>| {
            frame[8] = stream;
            frame
        };
        let mut reserved = of(5, block(HEADERS, END_HEADERS, &[]));
        reserved[5] = 0x80;
        scanner.take(&[b'P'; PREFACE]);
        for (frame, expected) in [
            (of(1, block(HEADERS, END_HEADERS, &[0x82])), 1),
            (of(3, block(HEADERS, 0, &[0x82])), 1),
            (of(3, block(CONTINUATION, END_HEADERS, &[])), 2),
            (of(1, block(HEADERS, END_HEADERS, &[0x82])), 2),
            (of(5, frame(0, END_HEADERS, 9)), 2),
            (reserved, 3),
            (of(5, block(HEADERS, END_HEADERS, &[])), 3),
            (of(7, block(HEADERS, END_HEADERS, &[])), 4),
        ] {
            scanner.take(&frame);
            assert_eq!(scanner.requests, expected, "{frame:x?}");
        }
    }

    #[test]
    fn after_a_block_that_cannot_be_read_every_target_is_doubtful() {
        for frames in [
            block(HEADERS, END_HEADERS, &[0x44]),
            block(HEADERS, END_HEADERS | PRIORITY, &[0; 4]),
            block(HEADERS, END_HEADERS | PADDED, &[9, 0x82]),
            block(HEADERS, END_HEADERS, &[0x80]),
        ] {
            let findings = Rc::new(FrameFindings::default());
            let mut all = FrameInspector::new(&findings);
            all.inspect(&[b'P'; PREFACE]).unwrap();
            assert!(!findings.has_doubts() && !findings.is_doubtful("/"));
            all.inspect(&frames).unwrap();
            assert!(
                findings.has_doubts() && findings.is_doubtful("/"),
                "{frames:x?}"
            );
        }
    }

    #[test]
    fn altered_targets_are_bounded() {
        let findings = FrameFindings::default();
        let targets = |range: std::ops::Range<usize>| range.map(|n| format!("/{n}")).collect();
        findings.doubt(targets(0..ALTERED), false);
        findings.doubt(targets(0..ALTERED), false);
        assert!(findings.is_doubtful("/0") && !findings.is_doubtful("/other"));
        findings.doubt(targets(ALTERED..ALTERED + 1), false);
        assert!(findings.is_doubtful("/other"));
    }

    #[tokio::test(start_paused = true)]
    async fn each_header_block_has_its_own_time() {
        let findings = Rc::new(FrameFindings::default());
        let mut frames = FrameInspector::new(&findings);
        let head = frame(HEADERS, END_HEADERS, 4);
        frames.inspect(&[b'P'; PREFACE]).unwrap();
        frames.inspect(&head[..11]).unwrap();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            frames
                .inspect(&[&head[11..], &head[..11]].concat())
                .unwrap();
            assert_eq!(findings.head_since(), Some(Instant::now()));
        }
        frames.inspect(&head[11..]).unwrap();
        assert_eq!(findings.head_since(), None);
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            frames in prop::collection::vec((0_u8..10, 0_u8..8, any::<u8>()), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = vec![b'P'; PREFACE];
            let mut resets = 0;
            for (kind, flags, length) in frames {
                bytes.extend(frame(kind, flags, length));
                resets += u32::from(kind == RST_STREAM);
            }
            let (mut whole, mut parts) = (FrameScanner::new(), FrameScanner::new());
            let (a, b) = bytes.split_at(at.index(bytes.len()));
            prop_assert_eq!(whole.take(&bytes), resets);
            prop_assert_eq!(parts.take(a) + parts.take(b), resets);
            prop_assert_eq!(whole.in_head, parts.in_head);
            prop_assert_eq!(whole.is_lost, parts.is_lost);
            prop_assert_eq!(whole.requests, parts.requests);
            prop_assert_eq!(whole.altered, parts.altered);
        }
    }
}
