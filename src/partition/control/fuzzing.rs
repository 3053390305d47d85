//! Control pages for the fuzz targets: words as an input wants them, checks and identities put right.

use super::*;

/// Bytes of a page.
pub(crate) const BYTES: usize = PAGE_BYTES;
/// Words that mean something stand before this one.
pub(crate) const WORDS: usize = DURABLE_OFFSET + 1;

/// Makes the page that of these files: its own identity, and that of each segment whose id is told. The checks are
/// computed anew, those of the segments' slots only if `checks` is set or if they held before.
pub(crate) fn adopt(page: &mut [u64; BYTES / 8], own: FileIdentity, segments: &[(u64, FileIdentity)], checks: bool) {
    let own = identity_words(own);
    page[PAGE_IDENTITY..SEGMENT_IDENTITIES].copy_from_slice(&own);
    page[CHECK_WORD] = check(&own);
    for slot in [0, 1].map(segment_slot) {
        let words = &mut page[slot..slot + SEGMENT_SLOT_WORDS];
        let check_of = |words: &[u64]| check(&[&words[..2], &words[3..]].concat());
        let held = words[2] == check_of(words);
        if let Some((_, identity)) = segments.iter().find(|(id, _)| *id == words[1]) {
            words[3..].copy_from_slice(&identity_words(*identity));
        }
        if held || checks {
            words[2] = check_of(words);
        }
    }
}
