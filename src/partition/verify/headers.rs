//! The headers of segments, copy by copy.
//!
//! # Thread safety
//! Plain functions that change nothing.

use std::{io, path::Path};

use crate::{
    segment_header::{COPY_A_AT, COPY_B_AT, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::{OpenMode, Storage},
    verification::{Verification, VerifyFinding},
};

/// Whose a segment has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) topic_id: u128,
    pub(super) number: u32,
}

/// What the header of a segment's file is worth.
pub(super) struct Header {
    /// What readers believe; `None` if they can't.
    pub(super) believed: Option<SegmentHeader>,
    /// Why not, unless that was told.
    pub(super) refusal: Option<String>,
    /// The position of a copy that isn't what was written, where the other one is.
    pub(super) bad_copy: Option<u64>,
    /// The file's length.
    pub(super) file_bytes: u64,
}

/// One copy.
enum Copy {
    Intact(SegmentHeader),
    Damaged(HeaderFault),
    Unreadable,
}

/// Reads the header of the segment at `path`, and tells what is wrong with single copies, and if it can't be opened;
/// `None` if there is no file.
pub(super) fn read(
    storage: &dyn Storage,
    path: &Path,
    base: u64,
    owner: Owner,
    verification: &mut Verification<'_>,
) -> Option<Header> {
    let file = match storage.open(path, OpenMode::Read).and_then(|file| Ok((file.len()?, file))) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let refusal = verification.refused(path, 0..0, error);
            return Some(Header { believed: None, refusal, bad_copy: None, file_bytes: 0 });
        }
    };
    let (file_bytes, file) = file;
    let copies = [COPY_A_AT, COPY_B_AT].map(|position| {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        match file.read_at(&mut bytes, position) {
            Ok(read) => SegmentHeader::decode(&bytes[..read]).map_or_else(Copy::Damaged, Copy::Intact),
            Err(error) => {
                let (range, detail) = (position..position + SEGMENT_HEADER_BYTES as u64, error.to_string());
                verification.find(VerifyFinding::Unreadable { file: path.into(), range, detail });
                Copy::Unreadable
            }
        }
    });
    let (believed, bad_copy) = match &copies {
        [Copy::Intact(a), Copy::Intact(b)] => (*a, (a != b).then_some(COPY_B_AT)),
        [Copy::Intact(a), _] => (*a, Some(COPY_B_AT)),
        [_, Copy::Intact(b)] => (*b, Some(COPY_A_AT)),
        neither => return Some(neither_copy(file_bytes, path, neither, verification)),
    };
    if let Some(position) = bad_copy {
        let copy = &copies[usize::from(position == COPY_B_AT)];
        let range = position..position + SEGMENT_HEADER_BYTES as u64;
        let detail = match copy {
            Copy::Intact(_) => "it says something else than the other one".into(),
            Copy::Damaged(fault) => fault.to_string(),
            Copy::Unreadable => "it can't be read".into(),
        };
        verification.find(VerifyFinding::SegmentHeader { file: path.into(), range, detail });
    }
    let refusal = believed.refusal(base, owner);
    let believed = Some(believed).filter(|_| refusal.is_none());
    Some(Header { believed, refusal, bad_copy, file_bytes })
}

fn neither_copy(file_bytes: u64, path: &Path, copies: &[Copy; 2], verification: &mut Verification<'_>) -> Header {
    let fault =
        copies.iter().filter_map(|copy| if let Copy::Damaged(fault) = copy { Some(*fault) } else { None }).max();
    let Some(HeaderFault::Version(_)) = fault else {
        let fault = fault.map_or_else(|| "they can't be read".into(), |fault| fault.to_string());
        return Header::refused(file_bytes, format!("neither copy of the segment header is intact: {fault}"));
    };
    let detail = fault.map_or_else(String::new, |fault| fault.to_string());
    verification.find(VerifyFinding::NewerFormat { file: path.into(), position: COPY_A_AT, detail });
    Header { believed: None, refusal: None, bad_copy: None, file_bytes }
}

impl Header {
    fn refused(file_bytes: u64, refusal: String) -> Self {
        Self { believed: None, refusal: Some(refusal), bad_copy: None, file_bytes }
    }
}

impl SegmentHeader {
    /// Why an intact header isn't that of this segment, if so: what [`open_file`](crate::partition::segment::open_file)
    /// refuses.
    fn refusal(&self, base: u64, owner: Owner) -> Option<String> {
        if self.topic_id != owner.topic_id.to_le_bytes() || self.partition != owner.number {
            return Some("the segment belongs to another partition".into());
        }
        let named = self.base_offset == base;
        (!named).then(|| format!("the header says base offset {}, which is not the file's name", self.base_offset))
    }
}
